package signalbox.client

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.longOrNull
import kotlinx.serialization.json.put

/** A message to the user, to a room, or to everyone. */
public class Message internal constructor(
    /** The event type. */
    public val type: String,
    /** The JSON that the sender gave. */
    public val payload: JsonElement,
    /** The user who sent it; null for the platform. */
    public val sender: String?,
    /** The user to whom it was sent; null for a message to a room or to everyone. */
    public val receiver: String?,
    /** The room to which it was sent; null for others. */
    public val room: String?,
    /** Its number in the history of the room or of the user; null if it has none. */
    public val offset: Long?,
    /** The time when the server received it, in RFC 3339 with microseconds. */
    public val timestamp: String?,
    /** Null if the sender asked for no answer. */
    public val messageId: String?,
) {
    override fun toString(): String = "Message(type=$type, sender=$sender, room=$room, offset=$offset, payload=$payload)"
}

/** The answer of the server to a call. */
public class Answer internal constructor(
    /** `delivered`, `offline`, `kept` or `handled`. */
    public val status: String,
    /** The ID that the server gave the message. */
    public val messageId: String?,
    /** The JSON with which a plugin answered. */
    public val data: JsonElement?,
    /** Whether the server had handled the call before, and repeats its answer. */
    public val duplicate: Boolean,
) {
    override fun toString(): String = "Answer(status=$status, data=$data, duplicate=$duplicate)"
}

/** Messages of a room's history. */
public class Page internal constructor(
    /** The messages, oldest first. */
    public val messages: List<Message>,
    /** Whether older messages are kept: ask again, with the smallest offset as `before`. */
    public val hasOlder: Boolean,
)

/** Tells whether messages were missed while the client was away. If so, reload your state. */
public data class Recovery(
    /** Whether nothing was missed: the messages follow. */
    public val recovered: Boolean,
    /** The reason why they cannot be delivered: `epoch`, `expired`, `too_many`, or `no_history` if the room has none any more. */
    public val reason: String?,
)

/** A place in a history: the last message that the application got. */
internal data class Position(val epoch: String, val offset: Long)

/** A position as the server reports it. */
internal class Place(fields: JsonObject) {
    private val epoch = fields.text("epoch")
    private val offset = fields.number("offset") ?: 0
    private val count = fields.number("count") ?: 0
    val recovered = fields.flag("recovered")
    val reason = fields.text("reason")

    /** The position before the old messages that follow; null if there is no history. */
    val start: Position? get() = epoch?.ifEmpty { null }?.let { Position(it, offset - count) }
}

/** The payload of an `ack`. */
internal class Ack(fields: JsonObject) {
    val id = fields.text("id")
    val room = fields.fields("room")?.let(::Place)
    val history = fields.fields("history")
    val answer = Answer(
        status = fields.text("status").orEmpty(),
        messageId = fields.text("messageId"),
        data = fields["data"],
        duplicate = fields.flag("duplicate") ?: false,
    )
}

/** A frame of the client. */
internal class Outgoing(
    val type: String,
    val payload: JsonElement? = null,
    val to: String? = null,
    val room: String? = null,
    val once: Boolean = false,
) {
    fun encode(id: String): String = buildJsonObject {
        put("type", type)
        payload?.let { put("payload", it) }
        to?.let { put("receiverId", it) }
        room?.let { put("room", it) }
        put("id", id)
        if (once) put("once", true)
    }.toString()
}

/** A frame of the server is not one of the protocol. */
internal class InvalidFrameException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** Reads a frame. All of them have the form of a message. */
internal fun decode(text: String): Message {
    val frame = try {
        Json.parseToJsonElement(text) as? JsonObject
    } catch (error: SerializationException) {
        throw InvalidFrameException("a frame is not JSON", error)
    }
    return message(frame ?: throw InvalidFrameException("a frame is not an object"))
}

/** A message as the server writes it. */
internal fun message(fields: JsonObject): Message = Message(
    type = fields.text("type")?.ifEmpty { null } ?: throw InvalidFrameException("a frame has no type"),
    payload = fields["payload"] ?: JsonNull,
    sender = fields.text("senderId")?.ifEmpty { null },
    receiver = fields.text("receiverID")?.ifEmpty { null },
    room = fields.text("room")?.ifEmpty { null },
    offset = fields.number("offset"),
    timestamp = fields.text("timestamp"),
    messageId = fields.text("messageId"),
)

/** A page as the server writes it. */
internal fun page(fields: JsonObject): Page = Page(
    messages = fields.list("messages").orEmpty().map { message(it.asFields("messages")) },
    hasOlder = fields.flag("hasOlder") ?: false,
)

internal fun JsonElement.asFields(name: String): JsonObject =
    this as? JsonObject ?: throw InvalidFrameException("$name is not an object")

internal fun JsonObject.text(name: String): String? = given(name) { (it as? JsonPrimitive)?.takeIf(JsonPrimitive::isString)?.content }

internal fun JsonObject.number(name: String): Long? = given(name) { (it as? JsonPrimitive)?.longOrNull }

internal fun JsonObject.flag(name: String): Boolean? = given(name) { (it as? JsonPrimitive)?.booleanOrNull }

internal fun JsonObject.list(name: String): JsonArray? = given(name) { it as? JsonArray }

internal fun JsonObject.fields(name: String): JsonObject? = given(name) { it as? JsonObject }

/** A field that may be absent or null, and must be of its kind otherwise. */
private inline fun <T : Any> JsonObject.given(name: String, read: (JsonElement) -> T?): T? {
    val value = this[name]
    if (value == null || value is JsonNull) return null
    return read(value) ?: throw InvalidFrameException("$name of a frame is not of its kind")
}
