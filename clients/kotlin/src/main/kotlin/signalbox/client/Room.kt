package signalbox.client

import kotlinx.serialization.json.JsonElement

/** A room: its callbacks, its users, and the calls for it. All methods can be called by any thread. */
public class Room internal constructor(
    /** The name of the room. */
    public val name: String,
    private val core: Core,
) {
    internal val byType = MessageCallbacks(core.scheduler)
    internal val onPresence = Callbacks<Presence>(core.scheduler)
    internal val onRecovery = Callbacks<Recovery>(core.scheduler)
    internal val onLeft = Callbacks<SignalboxException>(core.scheduler)
    internal var users = Presence()
    internal var lastRecovered: Boolean? = null

    internal val hasCallbacks: Boolean
        get() = !byType.isEmpty || listOf(onPresence, onRecovery, onLeft).any { it.list.isNotEmpty() }

    /** Whether the client is a member now. */
    public val isJoined: Boolean get() = core.scheduler.locked { core.rooms.membership(name)?.joined ?: false }

    /** The users, if the room was joined with `presence`. */
    public val presence: Presence get() = core.scheduler.locked { users }

    /** Whether the last join of the application recovered all messages; null if there was nothing to recover. */
    public val recovered: Boolean? get() = core.scheduler.locked { lastRecovered }

    /**
     * Calls [callback] with each message of this type to the room; `*` stands for every type. Callbacks outlive [leave]: end them if
     * the client is not to remember the room.
     */
    public fun on(type: String, callback: suspend (Message) -> Unit): Subscription = kept { byType.add(type, callback) }

    /** Calls [callback] with the users of the room after each change. */
    public fun onPresence(callback: suspend (Presence) -> Unit): Subscription = kept { onPresence.add(callback) }

    /** Calls [callback] after each rejoin, before any later message of the room. */
    public fun onRecovery(callback: suspend (Recovery) -> Unit): Subscription = kept { onRecovery.add(callback) }

    /** Calls [callback] when the server ended the membership, or refused it, for good. */
    public fun onLeft(callback: suspend (SignalboxException) -> Unit): Subscription = kept { onLeft.add(callback) }

    private inline fun kept(add: () -> Subscription): Subscription = core.scheduler.locked {
        core.rooms.keep(this)
        add()
    }

    /** Joins the room, see [Signalbox.join]. */
    public suspend fun join(
        last: Int = 0,
        presence: Boolean = false,
        token: String? = null,
        fetchToken: (suspend (room: String) -> String)? = null,
    ) {
        core.join(this, JoinOptions(last, presence, token, fetchToken))
    }

    /** Leaves the room, see [Signalbox.leave]. */
    public suspend fun leave() {
        core.leave(name)
    }

    /** Sends a message to the room, see [Signalbox.send]. */
    public suspend fun send(type: String, payload: JsonElement? = null, once: Boolean = false): Answer =
        core.ask(Outgoing(type, payload, room = name, once = once)).answer

    /** Reads messages of the history, see [Signalbox.history]. */
    public suspend fun history(before: Long? = null, limit: Int? = null): Page = core.history(name, before, limit)
}
