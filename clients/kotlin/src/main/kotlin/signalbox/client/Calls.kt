package signalbox.client

import java.security.SecureRandom
import kotlin.io.encoding.Base64
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds

/** A frame with an ID, and the function that gets its answer, once, with the lock held: an [Ack], or an error. */
internal class PendingCall(frame: Outgoing, val answered: (Ack?, SignalboxException?) -> Unit) {
    val id: String = newId()
    val text: String = frame.encode(id)
    val bytes: Int = text.encodeToByteArray().size
    val once: Boolean = frame.once
    var retries: Int = 0

    /** Repetitions after `in_progress`, which are no [retries], and when they end. */
    var polls: Int = 0
    var pollsEnd: Duration? = null

    /** Waits for the answer, or for the next try. */
    var alarm: Alarm? = null
    var done: Boolean = false
}

/** All calls of a client. The caller of each method holds the lock. */
internal class Calls(private val scheduler: Scheduler, private val options: Options, private val random: () -> Double) {
    private var socket: Socket? = null
    private var frameBytesMax = 0

    /** Whether messages may go out: the rooms were joined again. */
    private var flowing = false

    /** The calls that wait for an answer, in the order in which they were written. */
    private val pending = LinkedHashMap<String, PendingCall>()
    private val queue = ArrayList<PendingCall>()
    private var queueBytes = 0

    /** Calls with `once` that a connection took with it. They come before the queue. */
    private val again = ArrayList<PendingCall>()

    /** Calls with `once` that wait for their next try. */
    private val resting = LinkedHashSet<PendingCall>()

    /** The number of messages that wait for the connection. */
    val queued: Int get() = queue.size + again.size

    /** Sends a message now, or after the connection and the rooms are there. */
    fun start(call: PendingCall) {
        val open = socket
        when {
            isTooLarge(call) -> failTooLarge(call)
            open != null && flowing -> if (hasRoom(open, call)) write(call, open) else fail(call, ErrorCode.QUEUE_FULL, SLOW)
            open == null && options.failOffline -> fail(call, ErrorCode.OFFLINE, "there is no connection")
            queue.size >= options.queueMax || queueBytes + call.bytes > options.queueBytesMax ->
                fail(call, ErrorCode.QUEUE_FULL, "too many messages wait for the connection")
            else -> {
                queue += call
                queueBytes += call.bytes
            }
        }
    }

    /** Sends a frame about the connection itself, which must be there: it waits for no other. */
    fun control(call: PendingCall) {
        val open = socket
        when {
            open == null -> fail(call, ErrorCode.CONNECTION_LOST, "there is no connection")
            isTooLarge(call) -> failTooLarge(call)
            else -> write(call, open)
        }
    }

    /** Nobody waits for the answer any more. A message that was not sent yet is not sent. */
    fun forget(call: PendingCall) {
        call.done = true
        remove(call)
    }

    /** Hands over an `ack`. */
    fun answer(ack: Ack) {
        pending[ack.id]?.let { finish(it, ack, null) }
    }

    /** Hands over an `error` with an ID. */
    fun refuse(id: String, error: SignalboxException) {
        val call = pending[id] ?: return
        val wait = if (call.once && error.retryable) waitAfter(call, error.code) else null
        if (wait != null) rest(call, wait) else finish(call, null, error)
    }

    /** There is a connection. Messages still wait. */
    fun connected(open: Socket, frameBytesMax: Int) {
        socket = open
        this.frameBytesMax = frameBytesMax
    }

    /** Sends all messages that wait. */
    fun flow() {
        val open = socket
        if (open == null || flowing) return
        flowing = true
        val waiting = again + queue
        again.clear()
        queue.clear()
        queueBytes = 0
        for (call in waiting) {
            if (isTooLarge(call)) failTooLarge(call) else write(call, open)
        }
    }

    /** The connection is gone, and with it the answers. */
    fun lost() {
        socket = null
        flowing = false
        val (kept, lost) = pending.values.toList().partition { it.once }
        pending.clear()
        kept.forEach { it.alarm?.stop() }
        again.addAll(0, kept)
        lost.forEach { fail(it, ErrorCode.CONNECTION_LOST, "the connection was lost before the answer came") }
    }

    /** The client is closed. */
    fun failAll() {
        socket = null
        flowing = false
        for (call in pending.values + again + queue + resting) finish(call, null, closedError())
    }

    private fun hasRoom(open: Socket, call: PendingCall): Boolean {
        val bytesMax = minOf(OUTBOX_FACTOR * options.queueBytesMax, OUTBOX_BYTES_MAX)
        val waiting = open.waiting
        return waiting == 0L || waiting + call.bytes <= bytesMax
    }

    private fun isTooLarge(call: PendingCall) = frameBytesMax > 0 && call.bytes > frameBytesMax

    private fun failTooLarge(call: PendingCall) {
        fail(call, ErrorCode.TOO_LARGE, "the frame has ${call.bytes} bytes, and the server takes $frameBytesMax")
    }

    private fun write(call: PendingCall, open: Socket) {
        pending[call.id] = call
        if (open.kind == TransportKind.WEBSOCKET) leaves(call)
        open.send(call)
    }

    /** The frame of a call is written now. Returns false if nobody waits for its answer any more. */
    fun leaves(call: PendingCall): Boolean {
        if (pending[call.id] !== call) return false
        if (call.alarm?.isOver != false) {
            call.alarm = scheduler.after(options.answerTimeout) {
                fail(call, ErrorCode.TIMEOUT, "no answer came within ${options.answerTimeout}")
            }
        }
        return true
    }

    /** The wait before the next try of a call that was refused for now; null if there is none. */
    private fun waitAfter(call: PendingCall, code: String): Duration? {
        if (code != IN_PROGRESS) {
            if (call.retries >= RETRIES_MAX) return null
            return Backoff(options.backoffMin, options.backoffMax, random, call.retries++).next()
        }
        val now = scheduler.clock.now()
        val end = call.pollsEnd ?: (now + IN_PROGRESS_TIME).also { call.pollsEnd = it }
        if (now >= end) return null
        val longest = minOf(options.backoffMax, IN_PROGRESS_WAIT_MAX)
        return minOf(Backoff(options.backoffMin, longest, random, call.polls++).next(), end - now)
    }

    private fun rest(call: PendingCall, wait: Duration) {
        call.alarm?.stop()
        pending -= call.id
        resting += call
        call.alarm = scheduler.after(wait) {
            resting -= call
            val open = socket
            if (open != null && flowing) write(call, open) else again += call
        }
    }

    private fun fail(call: PendingCall, code: String, message: String) {
        finish(call, null, SignalboxException(code, message))
    }

    private fun finish(call: PendingCall, ack: Ack?, error: SignalboxException?) {
        if (call.done) return
        call.done = true
        remove(call)
        call.answered(ack, error)
    }

    private fun remove(call: PendingCall) {
        call.alarm?.stop()
        pending -= call.id
        resting -= call
        again -= call
        if (queue.remove(call)) queueBytes -= call.bytes
    }

    private companion object {
        /** The number of times that a call with `once` is repeated after a retryable error of the server. */
        const val RETRIES_MAX = 3

        /** The error for a repetition of a call that is being handled, or was until its node died. */
        const val IN_PROGRESS = "in_progress"

        /** How long a call is repeated after its first `in_progress`, and the longest wait in between. */
        val IN_PROGRESS_TIME = 15.seconds
        val IN_PROGRESS_WAIT_MAX = 2.seconds

        /** The bytes that may wait for a socket that is slow, as a multiple of the queue, and at most. */
        const val OUTBOX_FACTOR = 16L
        const val OUTBOX_BYTES_MAX = 8L * 1024 * 1024
        const val SLOW = "the connection is too slow for so many messages"
    }
}

private val secureRandom = SecureRandom()

/** Base64 of it has no padding. */
private const val ID_BYTES = 12

private fun newId(): String = Base64.UrlSafe.encode(ByteArray(ID_BYTES).also(secureRandom::nextBytes))
