package signalbox.client

/** The codes of errors that the client itself makes. */
public object ErrorCode {
    /** There is no connection, and messages do not wait for one. */
    public const val OFFLINE: String = "offline"

    /** Too many messages wait. */
    public const val QUEUE_FULL: String = "queue_full"

    /** The message may have been delivered, or not. */
    public const val CONNECTION_LOST: String = "connection_lost"

    /** No answer came in time. */
    public const val TIMEOUT: String = "timeout"

    /** The client is closed. */
    public const val CLOSED: String = "closed"

    /** The frame is larger than the server takes. */
    public const val TOO_LARGE: String = "too_large"

    /** There is no token that the server accepts. */
    public const val UNAUTHORIZED: String = "unauthorized"

    /** The server does not speak `signalbox.v1`. */
    public const val UNSUPPORTED_PROTOCOL: String = "unsupported_protocol"

    /** The server ended the connection for good. */
    public const val REFUSED: String = "refused"

    /** A frame of the server is not one of the protocol. */
    public const val INVALID_FRAME: String = "invalid_frame"

    /** A callback of the application failed. */
    public const val CALLBACK_FAILED: String = "callback_failed"

    /** A token callback failed, and is called again. */
    public const val TOKEN_FAILED: String = "token_failed"

    /** A proxy holds back the events of the server. The next attempt uses a WebSocket. */
    public const val BUFFERED: String = "buffered"

    internal val RETRYABLE = setOf(OFFLINE, QUEUE_FULL, CONNECTION_LOST, TIMEOUT, TOKEN_FAILED, BUFFERED)
}

/** The reason why a call, a join or a connection failed. */
public class SignalboxException internal constructor(
    /** A code of the server (docs/protocol.md), of a plugin, or of [ErrorCode]. */
    public val code: String,
    /** The reason, for people. */
    override val message: String,
    /** Whether the same call may succeed later. */
    public val retryable: Boolean = code in ErrorCode.RETRYABLE,
    /** The plugin that refused or failed. */
    public val plugin: String? = null,
    /** The HTTP status of a refused upgrade. */
    public val status: Int? = null,
    /** The close code that ended the connection for good. */
    public val closeCode: Int? = null,
    cause: Throwable? = null,
) : Exception(message, cause) {
    override fun toString(): String = "${javaClass.name}: $code: $message"
}

/**
 * A token callback throws this if there will be no token: the client is closed, or leaves the room, instead of calling it again.
 */
public class TokenDeniedException(message: String) : Exception(message)

internal fun closedError() = SignalboxException(ErrorCode.CLOSED, "the client is closed")
