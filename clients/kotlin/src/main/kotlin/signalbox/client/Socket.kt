package signalbox.client

import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.Job

/** The subprotocol of the client. */
internal const val SUBPROTOCOL: String = "signalbox.v1"

/** The time that a close handshake may take. */
internal val CLOSE_TIMEOUT: Duration = 2.seconds

/** Makes connections. */
internal fun interface Transport {
    /**
     * Connects to [url] and upgrades, with [token] if there is one. Throws [EndedException] if this fails. Its cancellation ends the
     * attempt, and leaves no socket.
     */
    suspend fun open(url: String, token: String?): Socket
}

/** An open WebSocket. */
internal interface Socket {
    /** The subprotocol that the server chose. */
    val subprotocol: String?

    /** The number of bytes that wait to be written. */
    val waiting: Long

    /** Completes when [abort] was called, or the socket has ended. */
    val over: Job

    /** Writes a frame after those before it, without waiting. A socket that has ended ignores it. */
    fun send(text: String)

    /** Returns the next frame. Throws [EndedException] at the end of the connection. */
    suspend fun receive(): String

    /** Ends the connection without a close handshake, and without waiting. [receive] throws then. */
    fun abort()

    /** Ends the connection with 1000. Waits for the close frame of the server, at most [CLOSE_TIMEOUT]. */
    suspend fun close()

    /** Frees the socket after [receive] has thrown, or when nobody will receive any more. It may finish a close handshake before. */
    suspend fun release()
}
