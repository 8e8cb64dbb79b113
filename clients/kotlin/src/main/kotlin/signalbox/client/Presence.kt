package signalbox.client

import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

/** A user in a room. */
public class Member internal constructor(
    /** The ID of the user. */
    public val user: String,
    /** The number of the user's connections in the room when they were last reported. */
    public val connections: Int,
    /** The claim `info` of the user's token. */
    public val info: JsonElement?,
) {
    override fun toString(): String = "Member(user=$user, connections=$connections)"
}

/** The users in a room, as far as they are known. */
public class Presence internal constructor(
    /** The number of users; 0 before the first report. */
    public val total: Int = 0,
    /** The users by their ID; null if they are not listed. */
    public val members: Map<String, Member>? = null,
) {
    /** The users after a `presence` frame. */
    internal fun after(frame: JsonObject): Presence {
        val total = frame.number("total")?.toInt() ?: 0
        frame.list("members")?.let { return Presence(total, byUser(it)) }
        val joined = frame.list("joined")
        val left = frame.list("left")
        if (members == null || joined == null && left == null) return Presence(total)
        val gone = left.orEmpty().map { (it as? JsonPrimitive)?.content ?: throw InvalidFrameException("left is not a list of users") }
        return Presence(total, members + byUser(joined.orEmpty()) - gone.toSet())
    }

    override fun toString(): String = "Presence(total=$total, members=${members?.keys})"
}

private fun byUser(members: List<JsonElement>): Map<String, Member> = members.associate {
    val fields = it.asFields("a member")
    val user = fields.text("userId") ?: throw InvalidFrameException("a member has no userId")
    user to Member(user, fields.number("connections")?.toInt() ?: 0, fields["info"])
}
