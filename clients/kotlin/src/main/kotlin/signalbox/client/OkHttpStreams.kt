package signalbox.client

import java.io.IOException
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicLong
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CompletableJob
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import okhttp3.Call
import okhttp3.Callback
import okhttp3.ConnectionPool
import okhttp3.HttpUrl
import okhttp3.HttpUrl.Companion.toHttpUrl
import okhttp3.Interceptor
import okhttp3.OkHttpClient
import okhttp3.Protocol
import okhttp3.Request
import okhttp3.Response
import okio.Buffer
import okio.BufferedSource

/** Connections with server-sent events. [postTimeout] is the longest time for a frame of the client. */
internal class OkHttpStreams(base: OkHttpClient?, private val postTimeout: Duration) : Transport {
    private val client by lazy {
        directClient(base)
            // One connection for the events, and one for the frames of the client. HTTP/2 would put both on one, which outlives them.
            .protocols(listOf(Protocol.HTTP_1_1))
            .connectionPool(ConnectionPool(1, IDLE_SECONDS, TimeUnit.SECONDS))
            .cache(null)
            .addNetworkInterceptor(OneRequest)
            .build()
    }

    override suspend fun open(url: String, token: String?): Socket {
        val stream = OkHttpStream(client, eventsUrl(url), postTimeout)
        stream.open(token)
        return stream
    }

    private companion object {
        /** Proxies close idle connections, often after a few seconds; a POST must not meet that moment. */
        const val IDLE_SECONDS = 5L
    }
}

/** The URL of the events, for that of a WebSocket. */
internal fun eventsUrl(url: String): HttpUrl {
    val http = "http${url.drop("ws".length)}".toHttpUrl()
    return http.newBuilder().setPathSegment(http.pathSize - 1, "sse").fragment(null).build()
}

/** Keeps OkHttp from repeating a request that was refused with 503 and `Retry-After: 0`. */
private object OneRequest : Interceptor {
    override fun intercept(chain: Interceptor.Chain): Response {
        val response = chain.proceed(chain.request())
        val isNow = response.header("Retry-After")?.trim()?.toIntOrNull() == 0
        return if (isNow) response.newBuilder().removeHeader("Retry-After").build() else response
    }
}

/** A connection whose frames are events of one long answer. Each frame of the client is a POST. */
private class OkHttpStream(
    private val client: OkHttpClient,
    private val url: HttpUrl,
    private val postTimeout: Duration,
) : Socket, Callback {
    private lateinit var events: Call
    private val opened = CompletableDeferred<Unit>()
    private val frames = Channel<String>(FRAMES_MAX)
    private val outbox = Channel<PendingCall>(OUTBOX_MAX)
    private val outboxBytes = AtomicLong()
    private val ended: CompletableJob = Job()
    private val parser = EventParser()
    private val posting = Job()

    /** The end that the server announced. Belongs to the thread that reads. */
    private var announced: Ending? = null

    private lateinit var posts: Posts

    @Volatile
    private var listener: SocketListener? = null

    override val kind = TransportKind.SSE
    override val subprotocol = SUBPROTOCOL
    override val waiting: Long get() = outboxBytes.get()
    override val over: Job get() = ended

    suspend fun open(token: String?) {
        val request = Request.Builder().url(url)
            .header("Accept", "text/event-stream")
            .header("Accept-Encoding", "identity")
            .header("Cache-Control", "no-store")
        token?.let { request.header("Authorization", "Bearer $it") }
        events = client.newCall(request.build())
        events.enqueue(this)
        try {
            opened.await()
        } catch (error: Throwable) {
            withContext(NonCancellable) { release() }
            throw error
        }
    }

    override fun welcomed(welcome: Welcome) {
        val key = welcome.sendKey
        if (welcome.connectionId.isNullOrEmpty() || key.isNullOrEmpty() || !isForHeader(key)) {
            throw EndedException(Ending("`welcome` has no connectionId or no sendKey"))
        }
        val target = url.newBuilder().query(null).addPathSegment(welcome.connectionId).build()
        posts = Posts(client, target, key, postTimeout)
    }

    override fun listen(listener: SocketListener) {
        this.listener = listener
        CoroutineScope(Dispatchers.Default + posting).launch { sendAll(listener) }
    }

    override fun send(call: PendingCall) {
        if (ended.isCompleted) return
        outboxBytes.addAndGet(call.bytes.toLong())
        if (outbox.trySend(call).isFailure) {
            outboxBytes.addAndGet(-call.bytes.toLong())
            listener?.refuse(call, SignalboxException(ErrorCode.QUEUE_FULL, "too many frames wait for their turn"))
        }
    }

    override suspend fun receive(): String = frames.receive()

    override fun abort() {
        end(Ending("the client ended the connection"))
    }

    override suspend fun close() {
        release()
    }

    override suspend fun release() {
        abort()
        // This wakes the thread that waits for room in it.
        frames.cancel()
        posting.cancelAndJoin()
        client.connectionPool.evictAll()
    }

    private fun end(ending: Ending) {
        val failure = EndedException(ending)
        opened.completeExceptionally(failure)
        frames.close(failure)
        ended.complete()
        posting.cancel()
        events.cancel()
    }

    override fun onFailure(call: Call, e: IOException) {
        end(lost(e))
    }

    override fun onResponse(call: Call, response: Response) {
        end(response.use { refusal(it) ?: read(it.body.source()) })
    }

    /** Reads events to their end. */
    private fun read(source: BufferedSource): Ending {
        opened.complete(Unit)
        return try {
            val piece = Buffer()
            while (announced == null && source.read(piece, PIECE_BYTES) >= 0) {
                listener?.heard()
                parser.feed(piece).forEach(::take)
            }
            announced ?: Ending("the answer has ended without an event `close`")
        } catch (error: IOException) {
            lost(error)
        } finally {
            // There is nothing to read any more before it is closed.
            events.cancel()
        }
    }

    private fun take(event: ServerEvent) {
        when {
            announced != null -> {}
            // This waits if the client does not keep up, and so does the server.
            event.name.isEmpty() || event.name == "message" -> frames.trySendBlocking(event.data)
            event.name == "close" -> announced = closed(event.data)
        }
    }

    /** Sends the frames one at a time. */
    private suspend fun sendAll(listener: SocketListener) {
        try {
            for (call in outbox) {
                do {
                    val isAgain = listener.leaves(call) && isToRepeat(call, posts.send(call.text), listener)
                } while (isAgain)
                outboxBytes.addAndGet(-call.bytes.toLong())
            }
        } catch (error: IOException) {
            end(lost(error))
        }
    }

    /** Handles the answer to a frame, and waits as long as the server asks to. */
    private suspend fun isToRepeat(call: PendingCall, answer: PostAnswer, listener: SocketListener): Boolean {
        when (answer.status) {
            ACCEPTED -> {}
            TOO_MANY -> {
                delay(maxOf(answer.retryAfter, FULL_WAIT_MIN))
                return true
            }
            UNAVAILABLE -> {
                val message = "the server did not answer in time: the message may have arrived"
                listener.refuse(call, SignalboxException(ErrorCode.CONNECTION_LOST, message))
                delay(answer.retryAfter)
            }
            TOO_LARGE -> listener.refuse(call, SignalboxException(ErrorCode.TOO_LARGE, "the frame is larger than the server takes"))
            else -> throw IOException("a POST was answered with HTTP ${answer.status}")
        }
        return false
    }

    private companion object {
        /** The most frames that wait for the client. */
        const val FRAMES_MAX = 16

        /** The most frames that wait for their turn to be sent. */
        const val OUTBOX_MAX = 1_000

        /** The most bytes that are read at once. */
        const val PIECE_BYTES = 8L * 1024

        const val ACCEPTED = 202
        const val TOO_LARGE = 413
        const val TOO_MANY = 429
        const val UNAVAILABLE = 503

        /** The shortest wait before the client repeats a frame for which there was no room. */
        val FULL_WAIT_MIN = 1.seconds
    }
}

/** The end of an attempt that got no stream of events; null if it got one. */
private fun refusal(response: Response): Ending? {
    val type = response.body.contentType()
    val encoding = response.header("Content-Encoding") ?: "identity"
    return when {
        response.code != 200 -> refused(response)
        type?.type != "text" || type.subtype != "event-stream" || encoding != "identity" ->
            Ending("the answer to GET is no stream of events", status = response.code)
        else -> null
    }
}

/** Reads the event `close`. */
private fun closed(data: String): Ending {
    val fields = runCatching { Json.parseToJsonElement(data) as? JsonObject }.getOrNull()
    return try {
        Ending(fields?.text("reason").orEmpty(), code = fields?.number("code")?.toInt(), answered = true)
    } catch (_: InvalidFrameException) {
        Ending("", answered = true)
    }
}
