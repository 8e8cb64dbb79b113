package signalbox.client

import java.util.concurrent.SynchronousQueue
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CompletableJob
import kotlinx.coroutines.Job
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.withTimeoutOrNull
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
    private val client = directClient(base)
        // A refused upgrade leaves no connection.
        .connectionPool(ConnectionPool(0, 1, TimeUnit.SECONDS))
        .addInterceptor(OneUpgrade)
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

/** For clients that send each request once, without redirects and without timeouts. */
internal fun directClient(base: OkHttpClient?): OkHttpClient.Builder = (base ?: Shared.client).newBuilder()
    .dispatcher(Shared.dispatcher)
    .followRedirects(false)
    .followSslRedirects(false)
    .retryOnConnectionFailure(false)
    .authenticator(Authenticator.NONE)
    // The client has timeouts for the attempt as a whole, and notices dead connections itself.
    .callTimeout(0, TimeUnit.SECONDS)
    .connectTimeout(0, TimeUnit.SECONDS)
    .readTimeout(0, TimeUnit.SECONDS)
    .writeTimeout(0, TimeUnit.SECONDS)

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

    override val kind = TransportKind.WEBSOCKET

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

    override fun send(call: PendingCall) {
        webSocket.send(call.text)
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
        frames.close(EndedException(Ending(reason, code = code.takeIf { isGiven }, answered = true)))
    }

    override fun onClosed(webSocket: WebSocket, code: Int, reason: String) {
        ended.complete()
    }

    override fun onFailure(webSocket: WebSocket, t: Throwable, response: Response?) {
        val failure = EndedException(if (opened.isCompleted) lost(t) else refusal(t, response ?: refusal))
        opened.completeExceptionally(failure)
        frames.close(failure)
        ended.complete()
    }

    private fun refusal(error: Throwable, response: Response?): Ending =
        if (response == null || response.code == SWITCHING) lost(error) else refused(response)

    private companion object {
        const val SWITCHING = 101

        /** The most frames that wait for the client. */
        const val FRAMES_MAX = 16
        const val NORMAL = 1000
        const val NO_STATUS = 1005
    }
}
