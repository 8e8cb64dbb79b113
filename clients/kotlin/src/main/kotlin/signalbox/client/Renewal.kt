package signalbox.client

import kotlin.time.Duration
import kotlin.time.Duration.Companion.ZERO
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Job
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch
import kotlinx.serialization.json.JsonPrimitive

/** Replaces the token of a connection before it expires. Properties need the lock. */
internal class Renewal(private val core: Core, private val tokens: Tokens, private val drop: (Ending) -> Unit) {
    private val scheduler = core.scheduler
    private var job: Job? = null
    private var replaced: Duration? = null

    /** The time that is left to the token; null if the server has not announced its end. */
    private var left: Duration? = null

    /** The token of the connection expires soon. The caller holds the lock. */
    fun renew(left: Duration) {
        if (!tokens.isRenewable) return
        this.left = left
        if (job == null) job = scheduler.scope.launch { keepRenewing() }
    }

    /** The connection is gone. The caller holds the lock. */
    fun stop() {
        left = null
        job?.cancel()
        job = null
    }

    /** Replaces tokens until the server announces no end, one cannot be replaced, or the connection is gone. */
    private suspend fun keepRenewing() {
        while (true) {
            val wait = scheduler.locked {
                val time = left
                if (time == null) {
                    job = null
                    return
                }
                left = null
                pauseBefore(time)
            }
            delay(wait)
            scheduler.locked { tokens.forget() }
            val error = replace()
            scheduler.locked {
                if (error == null) {
                    replaced = scheduler.clock.now()
                } else {
                    left = null
                    core.report(error)
                }
            }
        }
    }

    /** The server announces the end of a short-lived token at once. */
    private fun pauseBefore(left: Duration): Duration {
        val age = replaced?.let { scheduler.clock.now() - it }
        return if (age != null && age < SHORT_LIFE) maxOf(1.seconds, left / 2) else ZERO
    }

    /** Tries until it succeeds, or fails for good. Its job is cancelled if the connection is gone. */
    private suspend fun replace(): SignalboxException? {
        val backoff = Backoff(core.options.backoffMin, core.options.backoffMax, core.random)
        while (true) {
            val error = replaceOnce()
            if (error == null || !error.retryable) return error
            delay(backoff.next())
        }
    }

    private suspend fun replaceOnce(): SignalboxException? {
        val token = try {
            tokens.get()
        } catch (failure: TokenFailure) {
            scheduler.locked {
                if (failure.final) drop(Ending(failure.error.message, denied = true)) else core.report(failure.error)
            }
            return failure.error.takeUnless { failure.final }
        }
        val result = CompletableDeferred<SignalboxException?>()
        scheduler.locked {
            core.control(Outgoing("token", JsonPrimitive(token))) { _, error -> result.complete(error) }
        }
        return result.await()?.also {
            if (it.code == "invalid_token") scheduler.locked { tokens.forget() }
        }
    }

    private companion object {
        /** A token that expires so soon after another was replaced lives no longer than that. */
        val SHORT_LIFE = 30.seconds
    }
}
