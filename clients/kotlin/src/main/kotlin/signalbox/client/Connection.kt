package signalbox.client

import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.selects.select
import kotlinx.serialization.json.JsonObject

/** The payload of `welcome`. */
internal class Welcome(fields: JsonObject) {
    val heartbeatInterval: Duration? = fields.number("heartbeatIntervalMs")?.takeIf { it > 0 }?.milliseconds
    val frameBytesMax: Int = fields.fields("limits")?.number("frameBytesMax")?.toInt() ?: 0
    val connectionId: String? = fields.text("connectionId")
    val sendKey: String? = fields.text("sendKey")
    val user: Place? = fields.fields("user")?.let(::Place)
}

/** A socket that is welcome. */
internal class Connection(
    private val core: Core,
    private val link: Link,
    tokens: Tokens,
    val socket: Socket,
    private val welcome: Welcome,
) : SocketListener {
    private val scheduler = core.scheduler
    private val renewal = Renewal(core, tokens, ::drop)
    private val heartbeat = Heartbeat(
        scheduler,
        core.options.heartbeatInterval ?: welcome.heartbeatInterval ?: STANDARD_HEARTBEAT,
        core.options.heartbeatTimeout,
        ask = { core.control(Outgoing("heartbeat")) { _, _ -> } },
        lost = ::silent,
    )
    private var stable: Alarm? = null

    /** The reason why the client itself ended the connection; null if it did not. */
    private var end: Ending? = null

    /** Whether the client does not read, so that silence means nothing. */
    private var paused = false

    /** Begins its life. It calls [stable] when it has lasted. The caller holds the lock. */
    fun begin(stable: () -> Unit) {
        heartbeat.begin()
        this.stable = scheduler.after(core.options.stableAfter, stable)
        takeUserPlace()
        socket.listen(this)
        core.calls.connected(socket, welcome.frameBytesMax)
    }

    /** Cancels all timers. The caller holds the lock. */
    fun stop() {
        heartbeat.stop()
        stable?.stop()
        renewal.stop()
    }

    /** Handles frames until the connection ends. */
    suspend fun serve(): Ending {
        try {
            while (true) {
                val text = socket.receive()
                val backlog = scheduler.locked { take(text) }
                if (backlog != null) pause(backlog)
            }
        } catch (ended: EndedException) {
            return scheduler.locked { end ?: ended.ending }
        }
    }

    override fun heard() {
        scheduler.locked { if (link.isCurrent(this)) heartbeat.heard() }
    }

    override fun leaves(call: PendingCall): Boolean = scheduler.locked { core.calls.leaves(call) }

    override fun refuse(call: PendingCall, error: SignalboxException) {
        scheduler.locked { core.calls.refuse(call.id, error) }
    }

    /** Ends the connection. The caller holds the lock. */
    private fun drop(ending: Ending) {
        end = end ?: ending
        socket.abort()
    }

    private fun silent() {
        if (paused) heartbeat.begin() else drop(Ending("nothing arrived for too long"))
    }

    /** Takes a frame. The result completes when the client may go on. */
    private fun take(text: String): CompletableDeferred<Unit>? {
        if (link.isCurrent(this)) {
            heartbeat.heard()
            received(text)
        }
        return core.dispatcher.backlog().also { paused = it != null }
    }

    /** Reads nothing until fewer events wait. */
    private suspend fun pause(backlog: CompletableDeferred<Unit>) {
        select {
            backlog.onJoin {}
            socket.over.onJoin {}
        }
        scheduler.locked {
            paused = false
            if (link.isCurrent(this)) heartbeat.heard()
        }
    }

    private fun takeUserPlace() {
        val place = welcome.user
        val isRecovered = place?.recovered == true
        if (place == null || link.user == null || !isRecovered) link.user = place?.start
        if (place?.recovered != null) core.emit(core.onRecovery, Recovery(isRecovered, place.reason))
    }

    private fun received(text: String) {
        try {
            handle(decode(text))
        } catch (error: InvalidFrameException) {
            core.report(invalid(error))
        }
    }

    private fun handle(frame: Message) {
        when (frame.type) {
            "ack" -> core.calls.answer(Ack(frame.fields()))
            "error" -> refused(frame.fields())
            "joined" -> joined(frame.fields())
            "left" -> frame.fields().let { core.rooms.onLeft(room(it), it.text("reason")) }
            "presence" -> frame.fields().let { core.rooms.onPresence(room(it), it) }
            "token_expiring" -> renewal.renew((frame.fields().number("expiresInMs") ?: 0).milliseconds)
            // A second one says nothing.
            "welcome" -> {}
            else -> message(frame)
        }
    }

    private fun refused(fields: JsonObject) {
        val error = SignalboxException(
            code = fields.text("code") ?: throw InvalidFrameException("an error has no code"),
            message = fields.text("message").orEmpty(),
            retryable = fields.flag("retryable") ?: false,
            plugin = fields.text("plugin"),
        )
        val id = fields.text("id")
        if (id == null) core.report(error) else core.calls.refuse(id, error)
    }

    private fun joined(fields: JsonObject) {
        val user = fields.fields("user")?.let(::Place)
        if (user == null) {
            core.rooms.onJoined(room(fields), Place(fields))
        } else if (link.user != null && user.recovered == false) {
            // Messages to the user were missed, and the server cannot deliver them any more.
            link.user = user.start
            core.emit(core.onRecovery, Recovery(false, user.reason))
        }
    }

    private fun message(message: Message) {
        val room = message.room
        val isNext = if (room != null) core.rooms.accept(room, message) else accept(message)
        if (!isNext) return
        core.byType.emit(message, core.dispatcher)
        if (room != null) core.rooms.deliver(room, message)
    }

    /** Returns whether the application gets this message of the user. A gap leads to a reconnect. */
    private fun accept(message: Message): Boolean {
        val position = link.user
        val offset = message.offset
        if (position == null || offset == null) return true
        if (offset == position.offset + 1) {
            link.user = position.copy(offset = offset)
            return true
        }
        if (offset > position.offset) drop(Ending("messages to the user are missing"))
        return false
    }

    private companion object {
        /** The silence after which the client asks for a sign of life if `welcome` does not say. */
        val STANDARD_HEARTBEAT = 25.seconds
    }
}

private fun Message.fields(): JsonObject = payload.asFields("the payload of $type")

private fun room(fields: JsonObject): String = fields.text("room") ?: throw InvalidFrameException("a frame has no room")

internal fun invalid(error: InvalidFrameException) =
    SignalboxException(ErrorCode.INVALID_FRAME, error.message.orEmpty(), cause = error)
