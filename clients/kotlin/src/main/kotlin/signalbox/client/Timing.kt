package signalbox.client

import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.nanoseconds
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineName
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.delay
import kotlinx.coroutines.job
import kotlinx.coroutines.launch

/** The time, as far as a test replaces it. */
internal interface Clock {
    /** The time since some moment. It never runs backwards, and may stand still while a device sleeps. */
    fun now(): Duration

    /** The time of day, which goes on while a device sleeps. */
    fun timeOfDay(): Duration
}

internal object SystemClock : Clock {
    override fun now(): Duration = System.nanoTime().nanoseconds

    override fun timeOfDay(): Duration = System.currentTimeMillis().milliseconds
}

/** The lock of a client, its clock, and its coroutines. Nothing suspends while it holds the lock. */
internal class Scheduler(val dispatcher: CoroutineDispatcher, val clock: Clock) {
    val lock: ReentrantLock = ReentrantLock()
    val scope: CoroutineScope = CoroutineScope(SupervisorJob() + dispatcher + CoroutineName("signalbox"))

    /** Whether no coroutine of the client runs. */
    val isIdle: Boolean get() = scope.coroutineContext.job.children.none()

    inline fun <T> locked(block: () -> T): T = lock.withLock(block)

    /** Calls [action] after [wait], with the lock held, unless the alarm is stopped before. */
    fun after(wait: Duration, action: () -> Unit): Alarm {
        val alarm = Alarm()
        alarm.job = scope.launch {
            delay(wait)
            locked { alarm.ring(action) }
        }
        return alarm
    }
}

/** An action that is still to come. The caller of each method holds the lock. */
internal class Alarm {
    var job: Job? = null
    var isOver = false
        private set

    fun stop() {
        isOver = true
        job?.cancel()
    }

    fun ring(action: () -> Unit) {
        if (!isOver) {
            isOver = true
            action()
        }
    }
}

/** Random waits with full jitter: before attempt n a time between 0 and min([longest], [first] * 2^n). */
internal class Backoff(
    private val first: Duration,
    private val longest: Duration,
    private val random: () -> Double,
    private var attempts: Int = 0,
) {
    /** The wait before the next attempt. */
    fun next(): Duration = wait(attempts)

    /** A wait as before the first attempt, although it is before the next one. */
    fun short(): Duration = wait(0)

    private fun wait(attempt: Int): Duration {
        // The exponent is bounded: a client may try for years.
        val bound = minOf(longest, first * (1L shl minOf(attempt, EXPONENT_MAX)).toDouble())
        attempts++
        return bound * random()
    }

    /** Makes the next attempt the first one again. */
    fun reset() {
        attempts = 0
    }

    private companion object {
        const val EXPONENT_MAX = 40
    }
}
