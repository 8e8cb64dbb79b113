package signalbox.client

import java.io.IOException
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import okhttp3.Response

/** The most bytes that are read of a refusal. */
internal const val REFUSAL_BYTES_MAX: Long = 16L * 1024

private const val UNAUTHORIZED = 401

/** The codes of the server for a request out of which a proxy took the upgrade. */
private val UPGRADE_CODES = setOf("", "not_an_upgrade", "websocket_version", "websocket_key")

internal fun lost(error: Throwable): Ending = Ending(error.message ?: error.toString())

/** Reads why an attempt was refused. */
internal fun refused(response: Response): Ending {
    val error = errorOf(response)
    return Ending(
        reason = error?.message ?: "HTTP ${response.code} ${response.message}".trim(),
        status = response.code,
        retryAfter = retryAfter(response.header("Retry-After")),
        answered = response.code == UNAUTHORIZED || error?.code.orEmpty() !in UPGRADE_CODES,
    )
}

private class ServerError(val code: String?, val message: String?)

/** The error in the body; null if there is none of the server. */
private fun errorOf(response: Response): ServerError? = try {
    val body = Json.parseToJsonElement(response.peekBody(REFUSAL_BYTES_MAX).string()) as? JsonObject
    body?.fields("error")?.let { ServerError(it.text("code"), it.text("message")) }
} catch (_: IOException) {
    null
} catch (_: IllegalStateException) {
    null
} catch (_: SerializationException) {
    null
} catch (_: InvalidFrameException) {
    null
}
