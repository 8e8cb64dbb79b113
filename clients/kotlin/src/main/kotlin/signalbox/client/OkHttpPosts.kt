package signalbox.client

import java.io.IOException
import kotlin.coroutines.resumeWithException
import kotlin.time.Duration
import kotlinx.coroutines.suspendCancellableCoroutine
import kotlinx.coroutines.withTimeoutOrNull
import okhttp3.Call
import okhttp3.Callback
import okhttp3.HttpUrl
import okhttp3.MediaType
import okhttp3.MediaType.Companion.toMediaType
import okhttp3.OkHttpClient
import okhttp3.Request
import okhttp3.RequestBody
import okhttp3.Response
import okio.BufferedSink

/** The answer to a POST. */
internal class PostAnswer(val status: Int, val retryAfter: Duration)

/** Sends frames of the client, each with a POST. */
internal class Posts(
    private val client: OkHttpClient,
    private val target: HttpUrl,
    private val sendKey: String,
    private val timeout: Duration,
) {
    /** Sends a frame. Throws [IOException] if there is no answer. Its cancellation ends the request. */
    suspend fun send(text: String): PostAnswer {
        val request = Request.Builder().url(target).header("Authorization", "Bearer $sendKey").post(FrameBody(text)).build()
        return withTimeoutOrNull(timeout) { client.newCall(request).answer() }
            ?: throw IOException("a POST had no answer within $timeout")
    }
}

/** The body is sent at most once: a second time could be a second message. */
private class FrameBody(text: String) : RequestBody() {
    private val bytes = text.encodeToByteArray()

    override fun contentType(): MediaType = TYPE

    override fun contentLength(): Long = bytes.size.toLong()

    override fun writeTo(sink: BufferedSink) {
        sink.write(bytes)
    }

    override fun isOneShot(): Boolean = true

    private companion object {
        val TYPE = "application/json".toMediaType()
    }
}

private suspend fun Call.answer(): PostAnswer = suspendCancellableCoroutine { waiting ->
    waiting.invokeOnCancellation { cancel() }
    enqueue(object : Callback {
        override fun onFailure(call: Call, e: IOException) {
            waiting.resumeWithException(e)
        }

        override fun onResponse(call: Call, response: Response) {
            waiting.resumeWith(runCatching { response.use(::read) })
        }
    })
}

private fun read(response: Response): PostAnswer {
    // A connection whose answer was read can be used again.
    response.body.source().request(REFUSAL_BYTES_MAX)
    return PostAnswer(response.code, retryAfter(response.header("Retry-After")))
}
