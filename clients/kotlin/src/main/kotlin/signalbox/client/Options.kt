package signalbox.client

import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import okhttp3.HttpUrl.Companion.toHttpUrlOrNull
import okhttp3.OkHttpClient

/** The options of a client. One of [userId], [token], and a token callback is needed. */
public class Options internal constructor() {
    /** The user, for `auth.mode = "none"`. */
    public var userId: String? = null

    /** A token that never changes. */
    public var token: String? = null

    internal var fetchToken: (suspend () -> String)? = null

    /** The longest time for the TCP connection, the upgrade and `welcome` together. */
    public var connectTimeout: Duration = 10.seconds

    /** The wait before attempt n is random, from 0 to min([backoffMax], [backoffMin] * 2^n). */
    public var backoffMin: Duration = 500.milliseconds

    /** See [backoffMin]. */
    public var backoffMax: Duration = 20.seconds

    /** The time that a connection must last for the backoff to start again. */
    public var stableAfter: Duration = 5.seconds

    /** Whether the client uses server-sent events in networks that block WebSockets. */
    public var fallback: Boolean = true

    /** The time from an attempt with a WebSocket until a client that uses server-sent events tries one again, at its next reconnect. */
    public var webSocketAgain: Duration = 10.minutes

    /** The time that a call waits for its answer. */
    public var answerTimeout: Duration = 10.seconds

    /** The silence after which the client asks for a sign of life; null: as the server says. */
    public var heartbeatInterval: Duration? = null

    /** The time that the client waits for a sign of life. */
    public var heartbeatTimeout: Duration = 10.seconds

    /** The time that a token callback may take. */
    public var tokenTimeout: Duration = 30.seconds

    /** Whether messages fail with [ErrorCode.OFFLINE] instead of waiting for the connection. */
    public var failOffline: Boolean = false

    /** The most messages that wait for the connection. */
    public var queueMax: Int = 100

    /** The most bytes of messages that wait for the connection. */
    public var queueBytesMax: Int = 256 * 1024

    /** The most events that wait for callbacks. The client reads no more until some are done. */
    public var callbacksMax: Int = 1_000

    /** Callbacks run in it, one at a time; `Dispatchers.Main` in an app with a user interface. */
    public var callbackDispatcher: CoroutineDispatcher = Dispatchers.Default

    /** Gives proxies, certificates and names to the connection; null: those of the platform. */
    public var httpClient: OkHttpClient? = null

    /**
     * Gives a callback that returns a token. It is called before the first attempt, and when the token expires or is refused, never
     * twice at the same time. After an exception it is called again, except for [TokenDeniedException], which closes the client.
     */
    public fun token(fetch: suspend () -> String) {
        fetchToken = fetch
    }

    /** Throws [IllegalArgumentException] for options with which no client can work. */
    internal fun check(url: String): Options {
        require(isWebSocket(url)) { "the URL must begin with ws:// or wss:// and have a host: $url" }
        require(listOfNotNull(userId, token, fetchToken).size == 1) { "give one of userId, token, and a token callback" }
        require(token?.let(::isForHeader) ?: true) { "the token has characters that no header may have" }
        require(queueMax >= 0 && queueBytesMax >= 0) { "queueMax and queueBytesMax must not be negative" }
        require(callbacksMax > 0) { "callbacksMax must be positive" }
        require(backoffMin >= Duration.ZERO && backoffMax >= Duration.ZERO) { "backoffMin and backoffMax must not be negative" }
        return this
    }
}

/** Whether a token can be sent in a header: it has no spaces, line ends, or letters outside ASCII. */
internal fun isForHeader(token: String): Boolean = token.all { it in '!'..'~' }

private fun isWebSocket(url: String): Boolean {
    val isScheme = url.startsWith("ws://", ignoreCase = true) || url.startsWith("wss://", ignoreCase = true)
    return isScheme && "http${url.drop("ws".length)}".toHttpUrlOrNull() != null
}
