package signalbox.client

import kotlin.time.Duration.Companion.ZERO

/**
 * Decides which transport each attempt uses: section 12 of clients/SPEC.md. Attempts change between the transports until one of them
 * reaches the server. The caller of each method holds the lock.
 */
internal class Fallback(private val options: Options, private val clock: Clock) {
    private var next = TransportKind.WEBSOCKET

    /** The transport of the last connection. */
    private var worked: TransportKind? = null

    /** The time when the last attempt with a WebSocket began. */
    private var tried = ZERO

    /** The failed attempts in a row that the server itself did not answer. */
    private var failures = 0

    /** The transport of the last attempt, if a status ended it that may be that of a proxy. */
    private var doubted: TransportKind? = null

    /** A series of attempts begins. */
    fun start() {
        failures = 0
        doubted = null
        val isRecent = clock.now() - tried < options.webSocketAgain
        next = if (worked == TransportKind.SSE && isRecent) TransportKind.SSE else TransportKind.WEBSOCKET
    }

    /** An attempt begins. Returns its transport. */
    fun begin(): TransportKind {
        if (next == TransportKind.WEBSOCKET) tried = clock.now()
        return next
    }

    /** The attempt has led to a connection. */
    fun connected() {
        worked = next
    }

    /** The attempt has failed. Adds to [end] what follows from the choice of the transport. */
    fun failed(end: Ending) {
        if (!options.fallback) return
        val used = next
        val answered = end.answered && !(used == TransportKind.SSE && end.status in ABSENT)
        doubt(end, used, answered)
        failures = if (answered) 0 else failures + 1
        if (answered || (worked == TransportKind.WEBSOCKET && failures < FAILURES_MAX)) return
        next = used.other
        end.isPaired = next == TransportKind.SSE
    }

    /** A status that a proxy may have sent counts only after one with the other transport. */
    private fun doubt(end: Ending, used: TransportKind, answered: Boolean) {
        val isConfirmed = doubted == used.other
        val isDoubtful = !answered && end.status != null && end.next() == Following.GIVE_UP
        doubted = used.takeIf { isDoubtful }
        end.isDoubtful = isDoubtful && !isConfirmed
    }

    private companion object {
        /** So many attempts must fail before a client leaves a WebSocket that worked. */
        const val FAILURES_MAX = 3

        /** The statuses of a server, or a proxy, without server-sent events. */
        val ABSENT = setOf(404, 405, 410)
    }
}

private val TransportKind.other: TransportKind
    get() = if (this == TransportKind.SSE) TransportKind.WEBSOCKET else TransportKind.SSE
