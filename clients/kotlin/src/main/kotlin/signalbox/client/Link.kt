package signalbox.client

import java.net.URLEncoder
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Job
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeoutOrNull

/** Makes connections one after another. Properties need the lock. */
internal class Link(private val core: Core, private val url: String, private val world: World) {
    private val scheduler = core.scheduler
    private val options = core.options
    private val tokens = Tokens(scheduler, options.tokenTimeout, options.token, options.fetchToken?.let(::forHeader))
    private val backoff = Backoff(options.backoffMin, options.backoffMax, core.random)

    private val fallback = Fallback(options, scheduler.clock)

    /** The coroutine that owns the connection, and its number: an earlier one may still be closing its socket. */
    private var job: Job? = null
    private var run = 0L

    /** The number of refused attempts since the last connection. */
    private var refusals = 0

    /** Ends the wait for the next attempt; null if there is none. */
    private var wait: CompletableDeferred<Unit>? = null
    private var waitAlarm: Alarm? = null
    private var woke: Duration? = null

    /** The calls of `connect` that wait. */
    private val waiters = ArrayList<CompletableDeferred<Unit>>()

    private var connection: Connection? = null
    private var settling: Alarm? = null

    /** The position of the messages to the user. */
    var user: Position? = null

    /** Begins to connect. The result completes when there is a connection. The caller holds the lock. */
    fun connect(): CompletableDeferred<Unit> {
        val waiter = CompletableDeferred<Unit>()
        if (core.state == State.CONNECTED) {
            waiter.complete(Unit)
            return waiter
        }
        waiters += waiter
        if (core.state == State.CLOSED || job == null) start() else wake()
        return waiter
    }

    /** Nobody waits for this connection any more. The caller holds the lock. */
    fun forget(waiter: CompletableDeferred<Unit>) {
        waiters -= waiter
    }

    private fun start() {
        backoff.reset()
        refusals = 0
        val earlier = job
        val number = ++run
        core.change(StateChange(State.CONNECTING))
        job = scheduler.scope.launch {
            // The earlier one ends by itself: there is never more than one socket.
            earlier?.join()
            keepConnected(number)
        }
    }

    /** Ends the wait for the next attempt, at most once in 5 s. The caller holds the lock. */
    fun wake() {
        val now = scheduler.clock.now()
        val last = woke
        if (wait != null && (last == null || now - last >= WAKE_PAUSE)) {
            woke = now
            endWait()
        }
    }

    suspend fun close() {
        val (open, owner) = scheduler.locked {
            val open = connection?.socket
            if (core.state != State.CLOSED) {
                core.dispatcher.clear()
                shut(StateChange(State.CLOSED), closedError())
            }
            open to job
        }
        try {
            open?.close()
        } finally {
            withContext(NonCancellable) { owner?.cancelAndJoin() }
        }
    }

    fun stopSettling() {
        settling?.stop()
    }

    private suspend fun keepConnected(number: Long) {
        scheduler.locked(fallback::start)
        while (true) {
            val end = attempt(number)
            val wait = scheduler.locked { ended(number, end) } ?: return
            wait.join()
            scheduler.locked {
                if (run != number) return
                core.change(StateChange(State.CONNECTING))
            }
        }
    }

    /** Connects, and serves the connection until it ends. */
    private suspend fun attempt(number: Long): Ending {
        val token = try {
            tokens.get()
        } catch (failure: TokenFailure) {
            if (!failure.final) scheduler.locked { core.report(failure.error) }
            return Ending(failure.error.message, denied = failure.final)
        }
        val attempt = Attempt()
        try {
            val connection = withTimeoutOrNull(options.connectTimeout) { open(attempt, token) } ?: throw tooLate(attempt)
            return serve(connection, number).also { scheduler.locked(fallback::start) }
        } catch (ended: EndedException) {
            val end = ended.ending
            if (attempt.isAnswered) end.answered = true
            scheduler.locked { fallback.failed(end) }
            return end
        } finally {
            withContext(NonCancellable) { attempt.socket?.release() }
        }
    }

    /** An attempt to connect, up to `welcome`. */
    private class Attempt {
        var socket: Socket? = null

        /** Whether a frame has come. */
        var isAnswered = false
    }

    private suspend fun open(attempt: Attempt, token: String?): Connection {
        val (kind, target) = scheduler.locked { fallback.begin() to target() }
        val transport = if (kind == TransportKind.SSE) world.streams else world.webSockets
        val opened = transport.open(target, token)
        attempt.socket = opened
        return welcomed(opened, attempt)
    }

    /** The time of an attempt is over. */
    private fun tooLate(attempt: Attempt): EndedException {
        val limit = options.connectTimeout
        if (attempt.socket?.kind != TransportKind.SSE || attempt.isAnswered) {
            return EndedException(Ending("no connection within $limit"))
        }
        val reason = "a proxy holds back the server's events: the answer has begun, but no `welcome` came within $limit"
        scheduler.locked { core.report(SignalboxException(ErrorCode.BUFFERED, reason)) }
        return EndedException(Ending(reason))
    }

    /** Waits for `welcome`. */
    private suspend fun welcomed(socket: Socket, attempt: Attempt): Connection {
        if (socket.subprotocol != SUBPROTOCOL) {
            throw EndedException(Ending("the server did not accept the subprotocol $SUBPROTOCOL", unsupported = true))
        }
        while (true) {
            try {
                val text = socket.receive()
                attempt.isAnswered = true
                val frame = decode(text)
                if (frame.type != "welcome") continue
                val welcome = Welcome(frame.payload.asFields("welcome"))
                socket.welcomed(welcome)
                return Connection(core, this, tokens, socket, welcome)
            } catch (error: InvalidFrameException) {
                scheduler.locked { core.report(invalid(error)) }
            }
        }
    }

    private suspend fun serve(connection: Connection, number: Long): Ending {
        val isWanted = scheduler.locked {
            (run == number).also { if (it) connected(connection) }
        }
        return if (isWanted) connection.serve() else Ending("the client was closed")
    }

    private fun connected(opened: Connection) {
        connection = opened
        refusals = 0
        fallback.connected()
        core.change(StateChange(State.CONNECTED, transport = opened.socket.kind))
        waiters.forEach { it.complete(Unit) }
        waiters.clear()
        opened.begin(stable = backoff::reset)
        settling = scheduler.after(SETTLE_TIMEOUT) { core.flow() }
        core.rooms.onConnected()
    }

    /** Whether this is the connection now. The caller holds the lock. */
    fun isCurrent(other: Connection): Boolean = connection === other

    /** Handles the end of an attempt or a connection. Returns the wait for the next attempt; null if there is none. */
    private fun ended(number: Long, end: Ending): Job? {
        if (run != number) return null
        val wasConnected = connection != null
        disconnected()
        val final = final(end, wasConnected)
        if (final != null) {
            core.report(final)
            shut(StateChange(State.CLOSED, end.code, end.status, end.reason), final)
            return null
        }
        val delay = maxOf(if (end.isPaired) backoff.short() else backoff.next(), end.retryAfter)
        val over = CompletableDeferred<Unit>()
        wait = over
        waitAlarm = scheduler.after(delay, ::endWait)
        core.change(StateChange(State.DISCONNECTED, end.code, end.status, end.reason, delay))
        return over
    }

    private fun endWait() {
        waitAlarm?.stop()
        wait?.complete(Unit)
        wait = null
    }

    /** The error that ends the client for good; null if there is none. */
    private fun final(end: Ending, wasConnected: Boolean): SignalboxException? {
        val code = when (end.next()) {
            Following.RECONNECT -> return null
            Following.NEW_TOKEN -> {
                if (!wasConnected) refusals++
                if (tokens.isRenewable && refusals < REFUSALS_MAX) {
                    tokens.forget()
                    return null
                }
                ErrorCode.UNAUTHORIZED
            }
            Following.GIVE_UP -> when {
                end.denied -> ErrorCode.UNAUTHORIZED
                end.unsupported -> ErrorCode.UNSUPPORTED_PROTOCOL
                else -> ErrorCode.REFUSED
            }
        }
        return SignalboxException(code, end.reason, status = end.status, closeCode = end.code)
    }

    /** Closes the client, except for its socket. */
    private fun shut(change: StateChange, error: SignalboxException) {
        run++
        core.rooms.onLost()
        core.rooms.failWaiting()
        core.calls.failAll()
        disconnected()
        endWait()
        tokens.stop()
        tokens.forget()
        waiters.forEach { it.completeExceptionally(error) }
        waiters.clear()
        core.change(change)
    }

    /** The connection is gone, if there was one. */
    private fun disconnected() {
        val gone = connection ?: return
        connection = null
        gone.stop()
        stopSettling()
        core.rooms.onLost()
        core.calls.lost()
    }

    /** The URL of the next attempt. */
    private fun target(): String {
        val query = listOfNotNull(
            options.userId?.let { "userId" to it },
            user?.let { "since" to "${it.epoch}:${it.offset}" },
        )
        if (query.isEmpty()) return url
        val separator = if ('?' in url) "&" else "?"
        return url + separator + query.joinToString("&") { (name, value) -> "$name=${URLEncoder.encode(value, "UTF-8")}" }
    }

    /** A token with other characters would be an exception of the HTTP client. */
    private fun forHeader(fetch: suspend () -> String): suspend () -> String = {
        fetch().also { check(isForHeader(it)) { "it returned a token with characters that no header may have" } }
    }

    private companion object {
        /** The time that messages wait for the rooms after a reconnect. */
        val SETTLE_TIMEOUT = 10.seconds

        /** A token that the server refuses so often is wrong. */
        const val REFUSALS_MAX = 3

        /** A wait for the next attempt ends early at most this often. */
        val WAKE_PAUSE = 5.seconds
    }
}
