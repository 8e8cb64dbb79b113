package signalbox.client

import kotlin.time.Duration
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.withContext
import kotlinx.serialization.json.JsonElement

/** The state of a client. It begins in [DISCONNECTED]. */
public enum class State {
    /** There is no connection. The client waits for the next attempt, or was never connected. */
    DISCONNECTED,

    /** An attempt is under way. */
    CONNECTING,

    /** There is a connection. */
    CONNECTED,

    /** The application or the server ended the client. */
    CLOSED,
}

/** The way in which a connection carries frames. */
public enum class TransportKind {
    /** A WebSocket. */
    WEBSOCKET,

    /** Server-sent events, and a POST for each frame of the client. */
    SSE,
}

/** The new state of a client, and the reason for it. */
public data class StateChange(
    /** The new state. */
    public val state: State,
    /** The close code of the server. */
    public val code: Int? = null,
    /** The HTTP status of a refused upgrade. */
    public val status: Int? = null,
    /** The reason, for people. */
    public val reason: String? = null,
    /** The time until the next attempt, in the state [State.DISCONNECTED]. */
    public val retryIn: Duration? = null,
    /** The transport of the connection, in the state [State.CONNECTED]. */
    public val transport: TransportKind? = null,
)

/**
 * A client of Signalbox, a realtime WebSocket server. It connects again after a loss, with its rooms and its calls, and recovers the
 * messages that it missed.
 *
 * All methods can be called by any thread, also in callbacks. Callbacks run one after another, in the order in which the frames came;
 * one that suspends delays the others.
 */
public class Signalbox internal constructor(url: String, options: Options, world: World) {
    private val core = Core(url, options, world)

    /**
     * Makes a client for a URL such as `ws://127.0.0.1:8080/ws`. It does not connect yet.
     *
     * @throws IllegalArgumentException if the URL or the options are wrong.
     */
    public constructor(url: String, configure: Options.() -> Unit) : this(url, Options().apply(configure).check(url))

    private constructor(url: String, options: Options) : this(
        url,
        options,
        World(OkHttpTransport(options.httpClient), OkHttpStreams(options.httpClient, options.connectTimeout)),
    )

    /** The state now. */
    public val state: State get() = core.scheduler.locked { core.state }

    /** The names of the rooms that the client is in now, sorted. */
    public val joinedRooms: List<String> get() = core.scheduler.locked { core.rooms.joined }

    /** The number of messages that wait for the connection. */
    public val queued: Int get() = core.scheduler.locked { core.calls.queued }

    /** Whether nothing of the client runs. */
    internal val isIdle: Boolean get() = core.scheduler.isIdle

    /**
     * Connects the client, and keeps it connected until [close]. A wait for the next attempt ends, as with [wake]. Returns when there
     * is a connection. If the caller is cancelled before, the client goes on trying.
     *
     * @throws SignalboxException if the server refuses the client for good, or the client is closed.
     */
    public suspend fun connect() {
        val waiter = core.scheduler.locked { core.link.connect() }
        core.await(waiter) { core.link.forget(waiter) }
    }

    /** Says that the network is back: the wait for the next attempt ends, at most once in 5 s. */
    public fun wake() {
        core.scheduler.locked { core.link.wake() }
    }

    /**
     * Ends the connection, and fails all calls that wait with [ErrorCode.CLOSED]. Returns when the client holds no socket and no
     * coroutine, except for callbacks that have not returned. [connect] starts it again, with the rooms that were joined.
     */
    public suspend fun close() {
        core.link.close()
    }

    /** Calls [callback] with each message of this type; `*` stands for every type. */
    public fun on(type: String, callback: suspend (Message) -> Unit): Subscription =
        core.scheduler.locked { core.byType.add(type, callback) }

    /** Calls [callback] with each change of the state. */
    public fun onState(callback: suspend (StateChange) -> Unit): Subscription = core.scheduler.locked { core.onState.add(callback) }

    /** Calls [callback] with errors that no call gets. */
    public fun onError(callback: suspend (SignalboxException) -> Unit): Subscription =
        core.scheduler.locked { core.onError.add(callback) }

    /** Calls [callback] after a reconnect, with whether the messages to the user were recovered. */
    public fun onRecovery(callback: suspend (Recovery) -> Unit): Subscription =
        core.scheduler.locked { core.onRecovery.add(callback) }

    /** The room with this name, to add callbacks before [Room.join]. This alone joins nothing. */
    public fun room(name: String): Room = core.scheduler.locked { core.rooms.handle(name) }

    /**
     * Joins a room now or as soon as there is a connection, and again after each reconnect, until [leave]. Returns when the client is
     * a member for the first time. If the caller is cancelled before, the client goes on trying.
     *
     * @param last asks for as many old messages.
     * @param presence asks for the users in the room.
     * @param token is a token for the room, if its rules want one.
     * @param fetchToken returns a token for the room. It is called before the first join, and when the token has expired, never twice
     * at the same time. [TokenDeniedException] ends the membership; after other exceptions it is called again.
     * @throws SignalboxException if the server refuses the join for good, or the client is closed.
     */
    public suspend fun join(
        room: String,
        last: Int = 0,
        presence: Boolean = false,
        token: String? = null,
        fetchToken: (suspend (room: String) -> String)? = null,
    ): Room = room(room).also { it.join(last, presence, token, fetchToken) }

    /** Leaves a room. Returns when the server has answered, or the connection is gone. */
    public suspend fun leave(room: String) {
        core.leave(room)
    }

    /**
     * Sends a message, and returns the answer. It goes to the user [to] or to the room [room]; with neither, a plugin must handle its
     * type. If the caller is cancelled, a message that still waits is not sent.
     *
     * @param once makes the client send it again after a lost connection, and the server does not act twice.
     * @throws SignalboxException if it failed.
     */
    public suspend fun send(
        type: String,
        payload: JsonElement? = null,
        to: String? = null,
        room: String? = null,
        once: Boolean = false,
    ): Answer = core.ask(Outgoing(type, payload, to, room, once)).answer

    /** Sends a request to the plugin that handles its type, with `once`, and returns the data of the answer. */
    public suspend fun request(type: String, payload: JsonElement? = null): JsonElement? =
        send(type, payload, once = true).data

    /**
     * Reads messages of the history of a room that the client has joined: the newest ones, or those before the offset [before].
     *
     * @param limit is the most messages; null: as many as the server gives.
     */
    public suspend fun history(room: String, before: Long? = null, limit: Int? = null): Page = core.history(room, before, limit)
}

/** Connects the client, calls [block], and closes the client in any case. */
public suspend fun <T> Signalbox.use(block: suspend (Signalbox) -> T): T = try {
    connect()
    block(this)
} finally {
    withContext(NonCancellable) { close() }
}
