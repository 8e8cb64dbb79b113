package signalbox.client

import kotlin.time.Duration
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.DelicateCoroutinesApi
import kotlinx.coroutines.Job
import kotlinx.coroutines.launch
import kotlinx.coroutines.withTimeoutOrNull

/** A token callback has failed. [final]: it need not be called again. */
internal class TokenFailure(val error: SignalboxException, val final: Boolean) : Exception(error)

/** A token that the application gave, or the callback that fetches one. The callback never runs twice at the same time. */
internal class Tokens(
    private val scheduler: Scheduler,
    private val timeout: Duration,
    /** The caller holds the lock. */
    var token: String?,
    private val fetch: (suspend () -> String)?,
) {
    /** A callback that runs. */
    private class Fetching {
        val done = CompletableDeferred<Unit>()
        var job: Job? = null
        var isCancelled = false
        var failure: TokenFailure? = null
    }

    private var running: Fetching? = null

    /** Whether there is a callback. */
    val isRenewable: Boolean get() = fetch != null

    /** Whether the callback must be called first. The caller holds the lock. */
    val isMissing: Boolean get() = token == null && fetch != null

    /** The token is worth nothing any more, or soon. Without a callback there is no other. The caller holds the lock. */
    fun forget() {
        if (fetch != null) token = null
    }

    /** Ends a callback that runs. The caller holds the lock. */
    fun stop() {
        running?.let {
            it.isCancelled = true
            it.job?.cancel()
        }
    }

    /** Returns the token; null if the client has none. Throws [TokenFailure]. The caller does not hold the lock. */
    suspend fun get(): String? {
        while (true) {
            val (fetching, wasCancelled) = scheduler.locked {
                if (!isMissing) return token
                val fetching = running ?: start()
                fetching to fetching.isCancelled
            }
            val isDone = withTimeoutOrNull(timeout) { fetching.done.join() } != null
            scheduler.locked {
                if (!isDone && !fetching.done.isCompleted) {
                    fetching.job?.cancel()
                    throw retryLater("the token callback took longer than $timeout")
                }
                if (!wasCancelled && fetching.isCancelled) throw retryLater("the token is not needed any more")
                fetching.failure?.let { throw it }
            }
        }
    }

    @OptIn(DelicateCoroutinesApi::class)
    private fun start(): Fetching {
        val fetching = Fetching()
        running = fetching
        // It must reach its end also if it is cancelled before it begins.
        fetching.job = scheduler.scope.launch(start = CoroutineStart.ATOMIC) {
            val isWanted = scheduler.locked { !fetching.isCancelled }
            val result = if (isWanted) runCatching { call() } else null
            scheduler.locked { finish(fetching, result) }
        }
        return fetching
    }

    private suspend fun call(): String {
        val token = fetch?.invoke().orEmpty()
        return token.ifEmpty { throw IllegalStateException("it returned an empty token") }
    }

    private fun finish(fetching: Fetching, result: Result<String>?) {
        running = null
        if (!fetching.isCancelled && result != null) {
            result.onSuccess { token = it }
            result.onFailure { fetching.failure = failure(it) }
        }
        fetching.done.complete(Unit)
    }

    private fun failure(cause: Throwable): TokenFailure =
        if (cause is TokenDeniedException) {
            TokenFailure(SignalboxException(ErrorCode.UNAUTHORIZED, cause.message ?: "there is no token", cause = cause), final = true)
        } else {
            retryLater("the token callback failed: $cause", cause)
        }
}

private fun retryLater(message: String, cause: Throwable? = null) =
    TokenFailure(SignalboxException(ErrorCode.TOKEN_FAILED, message, cause = cause), final = false)
