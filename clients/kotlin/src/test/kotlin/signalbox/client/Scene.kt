package signalbox.client

import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlin.time.Duration
import kotlin.time.Duration.Companion.ZERO
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.CompletableJob
import kotlinx.coroutines.Deferred
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.test.StandardTestDispatcher
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.advanceTimeBy
import kotlinx.coroutines.test.currentTime
import kotlinx.coroutines.test.runCurrent
import kotlinx.coroutines.test.runTest
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.put

/** Runs a scene with a client whose sockets and whose time are scripted. The client must leave nothing behind. */
internal fun play(configure: Options.() -> Unit = {}, scene: suspend Scene.() -> Unit) = runTest {
    val played = Scene(this, configure)
    try {
        played.scene()
    } finally {
        // A client that goes on would never let the virtual time end.
        played.client.close()
        played.settle()
    }
    assertTrue(played.client.isIdle, "a closed client runs nothing")
    assertEquals(0, played.peers.count { !it.isReleased }, "a closed client holds no socket")
}

@OptIn(ExperimentalCoroutinesApi::class)
internal class Scene(private val test: TestScope, configure: Options.() -> Unit) {
    /** Added to the time of day, as if the device had slept. */
    var slept = ZERO

    /** The server's ends of all connections. */
    val peers = ArrayList<Peer>()

    /** The transports of all attempts. */
    val attempts = ArrayList<TransportKind>()
    val transport = ScriptedTransport(TransportKind.WEBSOCKET, peers, attempts)
    val streams = ScriptedTransport(TransportKind.SSE, peers, attempts)
    val events = ArrayList<String>()
    val client: Signalbox

    init {
        val clock = object : Clock {
            override fun now() = test.currentTime.milliseconds
            override fun timeOfDay() = now() + slept
        }
        val dispatcher = StandardTestDispatcher(test.testScheduler)
        val options = Options().apply {
            callbackDispatcher = dispatcher
            fallback = false
            configure()
            if (token == null && fetchToken == null) userId = "ann"
        }
        val url = "ws://127.0.0.1/ws"
        client = Signalbox(url, options.check(url), World(transport, streams, dispatcher, clock) { 1.0 })
        client.on("*") { events += "message ${it.payload} ${it.room} ${it.offset}" }
        client.onState { events += "state ${it.state} ${it.code ?: it.status ?: 0} ${it.retryIn ?: ZERO}" }
        client.onError { events += "error ${it.code}" }
        client.onRecovery { events += "recovered - ${it.recovered} ${it.reason}" }
    }

    /** Lets everything happen that is due now. */
    fun settle() {
        test.runCurrent()
    }

    fun pass(time: Duration) {
        test.advanceTimeBy(time)
        test.runCurrent()
    }

    fun of(kind: String): List<String> {
        settle()
        return events.filter { it.startsWith("$kind ") }.map { it.removePrefix("$kind ") }
    }

    fun watch(name: String) {
        val room = client.room(name)
        room.onRecovery { events += "recovered $name ${it.recovered} ${it.reason}" }
        room.onLeft { events += "left $name ${it.code}" }
        room.onPresence { events += "presence ${it.total} ${it.members?.keys?.sorted()}" }
    }

    /** Begins something that the application waits for. */
    fun <T> begin(work: suspend () -> T): Deferred<Result<T>> {
        val begun = test.backgroundScope.async(start = CoroutineStart.UNDISPATCHED) { runCatching { work() } }
        settle()
        return begun
    }

    fun send(payload: Any? = null, to: String? = null, once: Boolean = false): Deferred<Result<Answer>> =
        begin { client.send("note", payload?.let(::json), to = to, once = once) }

    fun join(name: String, last: Int = 0, presence: Boolean = false, fetchToken: (suspend (String) -> String)? = null) =
        begin { client.join(name, last, presence, fetchToken = fetchToken) }

    /** Begins to connect. */
    fun connect(): Deferred<Result<Unit>> = begin { client.connect() }

    /** The server's end of the newest connection. */
    val peer: Peer get() = peers.last()

    /** Lets the newest attempt succeed, and returns the server's end. */
    fun welcome(extra: JsonObject = JsonObject(emptyMap())): Peer {
        val payload = obj("heartbeatIntervalMs" to 25_000, "limits" to obj("frameBytesMax" to 65_536))
        peer.send("welcome", JsonObject(payload + extra))
        settle()
        assertEquals(State.CONNECTED, client.state)
        return peer
    }

    /** Connects, and returns the server's end. */
    fun connected(extra: JsonObject = JsonObject(emptyMap())): Peer {
        connect()
        return welcome(extra)
    }

    /** Lets the time until the next attempt pass, and no more: the attempt has timers too. */
    fun passBackoff() {
        pass(Duration.parse(of("state").last().substringAfterLast(' ')))
    }

    /** Lets the backoff pass, and returns the server's end of the new connection. */
    fun reconnected(extra: JsonObject = JsonObject(emptyMap())): Peer {
        passBackoff()
        return welcome(extra)
    }

    /** Joins a room, and returns the frame. */
    fun member(peer: Peer, name: String, place: JsonObject? = null): JsonObject {
        watch(name)
        val joining = join(name)
        val join = peer.answerJoin(place)
        settle()
        assertTrue(joining.result().isSuccess)
        return join
    }

    /** The next frame of the client is a message: no join comes before it. */
    fun answersNext(peer: Peer) {
        val call = send()
        val next = peer.next()
        assertEquals("note", next.string("type"))
        peer.ack(next)
        settle()
        assertTrue(call.result().isSuccess)
    }
}

/** Gives out scripted sockets. */
internal class ScriptedTransport(
    private val kind: TransportKind,
    val peers: MutableList<Peer>,
    private val attempts: MutableList<TransportKind>,
) : Transport {
    val urls = ArrayList<String>()
    val tokens = ArrayList<String?>()
    val refusals = ArrayDeque<Ending>()
    var subprotocol: String? = SUBPROTOCOL

    override suspend fun open(url: String, token: String?): Socket {
        check(peers.all { it.isReleased }) { "there are two sockets at a time" }
        urls += url
        attempts += kind
        tokens += token
        refusals.removeFirstOrNull()?.let { throw EndedException(it) }
        return Peer(kind, subprotocol).also { peers += it }
    }
}

/** Both ends of a connection. */
internal class Peer(override val kind: TransportKind, override val subprotocol: String?) : Socket {
    private val frames = Channel<String>(Channel.UNLIMITED)
    private val sent = ArrayDeque<JsonObject>()

    /** The calls whose frames the client has handed over. */
    val calls = ArrayList<PendingCall>()
    private val ended: CompletableJob = Job()
    var isReleased = false
    var isClosed = false
    override var waiting = 0L
    override val over: Job get() = ended

    var listener: SocketListener? = null

    override fun listen(listener: SocketListener) {
        this.listener = listener
    }

    override fun send(call: PendingCall) {
        sent += Json.parseToJsonElement(call.text).jsonObject
        calls += call
    }

    override suspend fun receive(): String = frames.receive()

    override fun abort() {
        frames.close(EndedException(Ending("dropped")))
        ended.complete()
    }

    override suspend fun close() {
        isClosed = true
        abort()
    }

    override suspend fun release() {
        isReleased = true
        abort()
    }

    /** The next frame of the client. */
    fun next(): JsonObject = sent.removeFirstOrNull() ?: error("the client has sent nothing")

    val isQuiet: Boolean get() = sent.isEmpty()

    fun sendText(text: String) {
        check(frames.trySend(text).isSuccess) { "the connection has ended" }
    }

    fun send(type: String, payload: JsonElement) {
        sendText(obj("type" to type, "payload" to payload).toString())
    }

    fun message(payload: Any, room: String? = null, offset: Long? = null, type: String = "note") {
        sendText(
            buildJsonObject {
                put("type", type)
                put("payload", json(payload))
                put("senderId", "bob")
                room?.let { put("room", it) }
                offset?.let { put("offset", it) }
            }.toString(),
        )
    }

    fun ack(frame: JsonObject, extra: JsonObject = obj()) {
        send("ack", JsonObject(obj("id" to frame.string("id"), "status" to "handled") + extra))
    }

    fun refuse(frame: JsonObject, code: String, retryable: Boolean) {
        send("error", obj("id" to frame.string("id"), "code" to code, "message" to "no", "retryable" to retryable))
    }

    fun answerJoin(place: JsonObject? = null): JsonObject {
        val join = next()
        assertEquals("join", join.string("type"))
        ack(join, if (place == null) obj() else obj("room" to place))
        return join
    }

    fun drop(ending: Ending = Ending("lost")) {
        frames.close(EndedException(ending))
    }
}

internal fun obj(vararg fields: Pair<String, Any?>): JsonObject = JsonObject(fields.associate { (name, value) -> name to json(value) })

internal fun json(value: Any?): JsonElement = when (value) {
    is JsonElement -> value
    is List<*> -> JsonArray(value.map(::json))
    is Number -> JsonPrimitive(value)
    is Boolean -> JsonPrimitive(value)
    else -> JsonPrimitive(value as String?)
}

internal fun JsonObject.string(name: String): String? = this[name]?.jsonPrimitive?.content

@OptIn(ExperimentalCoroutinesApi::class)
internal fun <T> Deferred<Result<T>>.result(): Result<T> {
    check(isCompleted) { "it still waits" }
    return getCompleted()
}

/** The code of the error with which it failed. */
internal fun Deferred<Result<*>>.code(): String? = (result().exceptionOrNull() as SignalboxException?)?.code
