package signalbox.client

import java.io.IOException
import java.util.concurrent.SynchronousQueue
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CompletableJob
import kotlinx.coroutines.Job
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.withTimeoutOrNull
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import okhttp3.Authenticator
import okhttp3.Call
import okhttp3.ConnectionPool
import okhttp3.EventListener
import okhttp3.Interceptor
import okhttp3.OkHttpClient
import okhttp3.Request
import okhttp3.Response
import okhttp3.WebSocket
import okhttp3.WebSocketListener
import okio.ByteString

/** Connections of OkHttp, which works on the JVM and on Android. */
internal class OkHttpTransport(base: OkHttpClient?) : Transport {
    private val client = (base ?: Shared.client).newBuilder()
        .dispatcher(Shared.dispatcher)
        // A refused upgrade leaves no connection.
        .connectionPool(ConnectionPool(0, 1, TimeUnit.SECONDS))
        .followRedirects(false)
        .followSslRedirects(false)
        .retryOnConnectionFailure(false)
        .authenticator(Authenticator.NONE)
        .addInterceptor(OneUpgrade)
        // The client has timeouts for the attempt as a whole, and notices dead connections itself.
        .callTimeout(0, TimeUnit.SECONDS)
        .connectTimeout(0, TimeUnit.SECONDS)
        .readTimeout(0, TimeUnit.SECONDS)
        .writeTimeout(0, TimeUnit.SECONDS)
        .pingInterval(0, TimeUnit.SECONDS)
        .webSocketCloseTimeout(CLOSE_TIMEOUT.inWholeSeconds, TimeUnit.SECONDS)
        .build()

    override suspend fun open(url: String, token: String?): Socket {
        val request = Request.Builder().url(url).header("Sec-WebSocket-Protocol", SUBPROTOCOL)
        token?.let { request.header("Authorization", "Bearer $it") }
        val socket = OkHttpSocket()
        socket.open(client, request.tag(OkHttpSocket::class.java, socket).build())
        return socket
    }
}

private object Shared {
    /** The certificates of the platform are loaded once. */
    val client by lazy { OkHttpClient() }

    /** The threads of all connections. OkHttp takes one for each connection; an idle one ends after a second. */
    val dispatcher = okhttp3.Dispatcher(
        ThreadPoolExecutor(0, Int.MAX_VALUE, 1, TimeUnit.SECONDS, SynchronousQueue()) { work ->
            Thread(work, "signalbox").apply { isDaemon = true }
        },
    ).apply {
        maxRequests = Int.MAX_VALUE
        maxRequestsPerHost = Int.MAX_VALUE
    }
}

/** Keeps OkHttp from repeating an upgrade that was refused with 503 and `Retry-After: 0`. */
private object OneUpgrade : Interceptor {
    private const val UNAVAILABLE = 503

    override fun intercept(chain: Interceptor.Chain): Response {
        val socket = chain.request().tag(OkHttpSocket::class.java)
        chain.call().addEventListener(object : EventListener() {
            override fun responseHeadersEnd(call: Call, response: Response) {
                if (response.code == UNAVAILABLE && response.header("Retry-After")?.trim() == "0") {
                    socket?.refusal = response
                    call.cancel()
                }
            }
        })
        return chain.proceed(chain.request())
    }
}

private class OkHttpSocket : WebSocketListener(), Socket {
    private lateinit var webSocket: WebSocket
    private val opened = CompletableDeferred<Unit>()
    private val frames = Channel<String>(FRAMES_MAX)
    private val ended: CompletableJob = Job()

    /** The refusal of an upgrade that was cancelled for it. */
    @Volatile
    var refusal: Response? = null

    @Volatile
    private var isClosing = false

    @Volatile
    override var subprotocol: String? = null
        private set

    override val waiting: Long get() = webSocket.queueSize()
    override val over: Job get() = ended

    suspend fun open(client: OkHttpClient, request: Request) {
        webSocket = client.newWebSocket(request, this)
        try {
            opened.await()
        } catch (error: Throwable) {
            abort()
            throw error
        }
    }

    override fun send(text: String) {
        webSocket.send(text)
    }

    override suspend fun receive(): String = frames.receive()

    override fun abort() {
        webSocket.cancel()
        frames.close(EndedException(Ending("the client ended the connection")))
        ended.complete()
    }

    override suspend fun close() {
        isClosing = true
        webSocket.close(NORMAL, null)
        release()
    }

    override suspend fun release() {
        try {
            if (isClosing) withTimeoutOrNull(CLOSE_TIMEOUT) { ended.join() }
        } finally {
            abort()
            // This wakes the thread that waits for room in it.
            frames.cancel()
        }
    }

    override fun onOpen(webSocket: WebSocket, response: Response) {
        subprotocol = response.header("Sec-WebSocket-Protocol")
        opened.complete(Unit)
    }

    override fun onMessage(webSocket: WebSocket, text: String) {
        // This waits if the client does not keep up, and so does the server.
        frames.trySendBlocking(text)
    }

    override fun onMessage(webSocket: WebSocket, bytes: ByteString) {
        frames.trySendBlocking(bytes.utf8())
    }

    override fun onClosing(webSocket: WebSocket, code: Int, reason: String) {
        isClosing = true
        val isGiven = code != NO_STATUS
        webSocket.close(if (isGiven) code else NORMAL, null)
        frames.close(EndedException(Ending(reason, code = code.takeIf { isGiven })))
    }

    override fun onClosed(webSocket: WebSocket, code: Int, reason: String) {
        ended.complete()
    }

    override fun onFailure(webSocket: WebSocket, t: Throwable, response: Response?) {
        val failure = EndedException(if (opened.isCompleted) lost(t) else refused(t, response ?: refusal))
        opened.completeExceptionally(failure)
        frames.close(failure)
        ended.complete()
    }

    private companion object {
        /** The most frames that wait for the client. */
        const val FRAMES_MAX = 16
        const val NORMAL = 1000
        const val NO_STATUS = 1005
    }
}

private fun lost(error: Throwable) = Ending(error.message ?: error.toString())

/** The most bytes of an answer that are read for its message. */
private const val BODY_BYTES_MAX = 1024L

/** Reads why an upgrade failed. */
private fun refused(error: Throwable, response: Response?): Ending {
    if (response == null || response.code == 101) return lost(error)
    return Ending(
        reason = message(response) ?: "HTTP ${response.code} ${response.message}".trim(),
        status = response.code,
        retryAfter = retryAfter(response.header("Retry-After")),
    )
}

private fun message(response: Response): String? = try {
    val body = Json.parseToJsonElement(response.peekBody(BODY_BYTES_MAX).string()) as? JsonObject
    body?.fields("error")?.text("message")
} catch (_: IOException) {
    null
} catch (_: IllegalStateException) {
    null
} catch (_: SerializationException) {
    null
} catch (_: InvalidFrameException) {
    null
}
