package signalbox.client

import kotlin.time.Duration
import kotlin.time.Duration.Companion.ZERO
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds

/** What the client does after the end of an attempt or a connection. */
internal enum class Following { RECONNECT, NEW_TOKEN, GIVE_UP }

/** How an attempt or a connection ended. */
internal class Ending(
    val reason: String,
    /** The close code of the server. */
    val code: Int? = null,
    /** The status of a refused upgrade. */
    val status: Int? = null,
    /** The least time until the next attempt. */
    val retryAfter: Duration = ZERO,
    /** Whether the server does not speak the protocol. */
    val unsupported: Boolean = false,
    /** Whether there will be no token. */
    val denied: Boolean = false,
    /** Whether the server itself ended it, rather than the network or a proxy. */
    var answered: Boolean = false,
) {
    /** Whether the status may be that of a proxy, so that it does not close the client yet. */
    var isDoubtful = false

    /** Whether the wait is short, because the next attempt uses server-sent events after one with a WebSocket. */
    var isPaired = false

    fun next(): Following = when {
        isDoubtful -> Following.RECONNECT
        unsupported || denied -> Following.GIVE_UP
        code in TOKEN_CODES || status == UNAUTHORIZED -> Following.NEW_TOKEN
        code in FINAL_CODES || status in FINAL_STATUSES -> Following.GIVE_UP
        else -> Following.RECONNECT
    }

    private companion object {
        const val UNAUTHORIZED = 401
        val TOKEN_CODES = setOf(4500, 4504)
        val FINAL_CODES = setOf(1002, 1003, 1007, 1008, 1009, 1010) + (4501..4999)
        val FINAL_STATUSES = setOf(400, 403, 404, 405, 410, 426)
    }
}

/** An attempt or a connection has ended. */
internal class EndedException(val ending: Ending) : Exception(ending.reason)

/** The time in a `Retry-After` header, at most a minute. */
internal fun retryAfter(header: String?): Duration {
    val seconds = header?.trim()?.toUIntOrNull() ?: return ZERO
    return minOf(seconds.toLong().seconds, 1.minutes)
}
