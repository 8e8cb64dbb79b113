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
     * Connects to the [url] of a WebSocket, or to that of the events that belongs to it, with [token] if there is one. Throws [EndedException] if this fails. Its cancellation ends the
     * attempt, and leaves no socket.
     */
    suspend fun open(url: String, token: String?): Socket
}

/** Hears about a connection apart from its frames. Each method takes the lock itself. */
internal interface SocketListener {
    /** Something arrived, which need not be a frame. */
    fun heard()

    /** The frame of [call] is written now. Returns false if nobody waits for its answer any more. */
    fun leaves(call: PendingCall): Boolean

    /** The answer to the POST of [call] was this error, or there was no room for its frame. */
    fun refuse(call: PendingCall, error: SignalboxException)
}

/** An open connection that carries frames. */
internal interface Socket {
    val kind: TransportKind

    /** The subprotocol that the server chose; [SUBPROTOCOL] if the transport has none. */
    val subprotocol: String?

    /** The number of bytes that wait to be written. */
    val waiting: Long

    /** Completes when [abort] was called, or the socket has ended. */
    val over: Job

    /** Takes what the connection needs of `welcome`. Throws [EndedException] if it is missing. */
    fun welcomed(welcome: Welcome) {}

    /** Begins to tell [listener] about the connection, and to send. A WebSocket, which writes at once, tells nothing. */
    fun listen(listener: SocketListener) {}

    /** Writes the frame of [call] after those before it, without waiting. A socket that has ended ignores it. */
    fun send(call: PendingCall)

    /** Returns the next frame. Throws [EndedException] at the end of the connection. */
    suspend fun receive(): String

    /** Ends the connection without a close handshake, and without waiting. [receive] throws then. */
    fun abort()

    /** Ends the connection with 1000. Waits for the close frame of the server, at most [CLOSE_TIMEOUT]. */
    suspend fun close()

    /** Frees the socket after [receive] has thrown, or when nobody will receive any more. It may finish a close handshake before. */
    suspend fun release()
}
