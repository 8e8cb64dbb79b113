package signalbox.client

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Job
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonObject

/** What the application asks of a room. */
internal data class JoinOptions(
    val last: Int,
    val presence: Boolean,
    val token: String?,
    val fetchToken: (suspend (String) -> String)?,
) {
    /** Whether both have the same source of tokens. Functions cannot be compared. */
    fun hasTokenOf(other: JoinOptions) = token == other.token && (fetchToken == null) == (other.fetchToken == null)

    /** Whether a join with the other options would be the same. */
    fun isSame(other: JoinOptions) = last == other.last && presence == other.presence && hasTokenOf(other)
}

/** A room that the application wants to be in, and the state of its joins. The caller of each method holds the lock. */
internal class Membership(val room: Room, var options: JoinOptions, var tokens: Tokens, val backoff: Backoff) {
    var position: Position? = null
    var joined = false

    /** Whether the client was a member before. */
    var confirmed = false

    /** The join that waits for its answer. */
    var call: PendingCall? = null

    /** Waits for a token. */
    var fetching: Job? = null

    /** Whether the token was never accepted yet. */
    var fresh = true

    /** Whether to join once more after the answer. */
    var rejoin = false

    /** Whether the join is in the queue. */
    var queued = false
    var retry: Alarm? = null

    /** The joins of the application. */
    val waiters = ArrayList<CompletableDeferred<Unit>>()

    /** Ends everything that would lead to another join. */
    fun stop() {
        joined = false
        call = null
        rejoin = false
        stopRetrying()
        stopFetching()
    }

    fun stopRetrying() {
        retry?.stop()
        retry = null
    }

    fun stopFetching() {
        fetching?.cancel()
        fetching = null
    }

    /** Ends the joins of the application that wait. */
    fun resolve(error: SignalboxException?) {
        for (waiter in waiters) {
            if (error == null) waiter.complete(Unit) else waiter.completeExceptionally(error)
        }
        waiters.clear()
    }

    fun joinFrame(): Outgoing {
        val since = position
        val payload = buildJsonObject {
            if (since != null) {
                putJsonObject("since") {
                    put("epoch", since.epoch)
                    put("offset", since.offset)
                }
            } else if (options.last > 0) {
                put("last", options.last)
            }
            if (options.presence) put("presence", true)
            tokens.token?.let { put("token", it) }
        }
        return Outgoing("join", payload.takeIf { it.isNotEmpty() }, room = room.name)
    }
}
