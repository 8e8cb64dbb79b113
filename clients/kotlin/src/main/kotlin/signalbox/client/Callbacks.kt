package signalbox.client

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/** A callback that was added. */
public fun interface Subscription {
    /** Ends it: the callback is not called any more. */
    public fun end()
}

/** The functions of the application for one kind of event. The caller of each method holds the lock of [scheduler]. */
internal class Callbacks<T>(private val scheduler: Scheduler) {
    class Callback<T>(val function: suspend (T) -> Unit) {
        @Volatile
        var ended: Boolean = false
    }

    var list: List<Callback<T>> = emptyList()
        private set

    fun add(function: suspend (T) -> Unit): Subscription {
        val added = Callback(function)
        list = list + added
        return Subscription {
            scheduler.locked {
                added.ended = true
                list = list - added
            }
        }
    }
}

/** Functions of the application by event type. The caller of each method holds the lock of [scheduler]. */
internal class MessageCallbacks(private val scheduler: Scheduler) {
    private val byType = HashMap<String, Callbacks<Message>>()

    val isEmpty: Boolean get() = byType.values.all { it.list.isEmpty() }

    fun add(type: String, function: suspend (Message) -> Unit): Subscription =
        byType.getOrPut(type) { Callbacks(scheduler) }.add(function)

    fun emit(message: Message, dispatcher: Dispatcher) {
        for (type in listOf(message.type, EVERY_TYPE)) {
            byType[type]?.let { dispatcher.emit(it, message) }
        }
    }
}

/** The event type that stands for all. */
internal const val EVERY_TYPE: String = "*"

/** Calls the functions of the application in order, one at a time. It has a coroutine only while some wait. */
internal class Dispatcher(
    private val scheduler: Scheduler,
    private val context: CoroutineDispatcher,
    private val waitingMax: Int,
    private val failed: (SignalboxException) -> Unit,
) {
    private class Delivery(val isEnded: () -> Boolean, val isReported: Boolean, val call: suspend () -> Unit)

    private val waiting = ArrayDeque<Delivery>()
    private var running = false
    private var ready: CompletableDeferred<Unit>? = null

    /** Calls each of the functions with [event], after those of earlier events. The caller holds the lock. */
    fun <T> emit(callbacks: Callbacks<T>, event: T) {
        // If a callback for such an error fails too, a report would come back to it.
        val isReported = (event as? SignalboxException)?.code != ErrorCode.CALLBACK_FAILED
        for (callback in callbacks.list) {
            waiting += Delivery({ callback.ended }, isReported) { callback.function(event) }
        }
        if (waiting.isNotEmpty() && !running) {
            running = true
            // A dispatcher of the application may be one that runs at once, and the caller holds the lock.
            scheduler.scope.launch { withContext(context) { drain() } }
        }
    }

    /** Forgets all events that wait. The caller holds the lock. */
    fun clear() {
        waiting.clear()
        release()
    }

    /** Completes once fewer events wait; null if few do. The caller holds the lock. */
    fun backlog(): CompletableDeferred<Unit>? {
        if (waiting.size < waitingMax) return null
        return ready ?: CompletableDeferred<Unit>().also { ready = it }
    }

    private suspend fun drain() {
        while (true) {
            val next = scheduler.locked { take() } ?: return
            if (!next.isEnded()) call(next)
        }
    }

    private fun take(): Delivery? {
        if (waiting.size < waitingMax) release()
        val next = waiting.removeFirstOrNull()
        running = next != null
        return next
    }

    private suspend fun call(next: Delivery) {
        try {
            next.call()
        } catch (cause: Throwable) {
            // Nothing cancels this coroutine: a cancellation comes from within the callback.
            if (next.isReported) {
                val error = SignalboxException(ErrorCode.CALLBACK_FAILED, "a callback failed: $cause", cause = cause)
                scheduler.locked { failed(error) }
            }
        }
    }

    private fun release() {
        ready?.complete(Unit)
        ready = null
    }
}
