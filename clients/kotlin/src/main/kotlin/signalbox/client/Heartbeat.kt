package signalbox.client

import kotlin.time.Duration
import kotlin.time.Duration.Companion.ZERO
import kotlin.time.Duration.Companion.seconds

/**
 * Asks for a sign of life after silence, and reports the connection as lost without one. It has one alarm. The caller of each
 * method holds the lock.
 */
internal class Heartbeat(
    private val scheduler: Scheduler,
    private val interval: Duration,
    private val timeout: Duration,
    private val ask: () -> Unit,
    private val lost: () -> Unit,
) {
    private val clock = scheduler.clock
    private var lastHeard = ZERO
    private var asked = false
    private var due = ZERO
    private var dueTimeOfDay = ZERO
    private var alarm: Alarm? = null

    /** Starts again: the connection is new, there was a sign of life, or the silence had another reason. */
    fun begin() {
        stop()
        lastHeard = clock.now()
        arm(interval)
    }

    /** Something arrived. */
    fun heard() {
        lastHeard = clock.now()
        if (asked) begin()
    }

    fun stop() {
        asked = false
        alarm?.stop()
    }

    private fun arm(wait: Duration) {
        due = clock.now() + wait
        dueTimeOfDay = clock.timeOfDay() + wait
        alarm = scheduler.after(wait, ::ring)
    }

    private fun ring() {
        val late = maxOf(clock.now() - due, clock.timeOfDay() - dueTimeOfDay)
        val silence = clock.now() - lastHeard
        when {
            // Nothing that was due during a pause of the process says anything about the connection.
            late > PAUSE -> question(minOf(timeout, PAUSE_TIMEOUT))
            asked -> {
                stop()
                lost()
            }
            silence >= interval -> question(timeout)
            else -> arm(interval - silence)
        }
    }

    private fun question(timeout: Duration) {
        asked = true
        ask()
        arm(timeout)
    }

    private companion object {
        /** A timer that is this late means that the process was paused. */
        val PAUSE = 5.seconds

        /** The time that the client waits for a sign of life after a pause. */
        val PAUSE_TIMEOUT = 5.seconds
    }
}
