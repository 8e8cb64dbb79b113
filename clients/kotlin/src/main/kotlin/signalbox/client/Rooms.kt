package signalbox.client

import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Job
import kotlinx.coroutines.launch
import kotlinx.serialization.json.JsonObject

/** All rooms of a client. The caller of each method holds the lock, unless it says otherwise. */
internal class Rooms(private val core: Core) {
    private val handles = HashMap<String, Room>()

    /** The memberships in their order. */
    private val memberships = LinkedHashMap<String, Membership>()
    private var connected = false
    private val toJoin = ArrayDeque<Membership>()
    private var unanswered = 0

    /** The rooms that messages wait for after a reconnect. */
    private val unsettled = HashSet<Membership>()

    /** The names of the rooms that the client is in. */
    val joined: List<String> get() = memberships.values.filter { it.joined }.map { it.room.name }.sorted()

    /** Returns the room with this name. */
    fun handle(name: String): Room = handles.getOrPut(name) { Room(name, core) }

    /** Remembers a room that the application uses. */
    fun keep(room: Room) {
        handles.getOrPut(room.name) { room }
    }

    fun membership(name: String): Membership? = memberships[name]

    /** The application wants to be in the room, with these options. The result completes when the client is a member. */
    fun request(name: String, options: JoinOptions): CompletableDeferred<Unit> {
        val waiter = CompletableDeferred<Unit>()
        val known = memberships[name]
        if (known != null && known.options.isSame(options) && known.joined && known.call == null) {
            waiter.complete(Unit)
            return waiter
        }
        val membership = known ?: add(name, options)
        if (!membership.options.isSame(options)) change(membership, options)
        membership.waiters += waiter
        enqueue(membership)
        return waiter
    }

    /** Nobody waits for this join any more. The membership stays. */
    fun forget(name: String, waiter: CompletableDeferred<Unit>) {
        memberships[name]?.waiters?.remove(waiter)
    }

    /** The application does not want to be in the room. Returns whether the server has to know. */
    fun leave(name: String): Boolean {
        val membership = memberships[name] ?: return false
        val isKnown = membership.joined || membership.call != null
        end(membership, SignalboxException(ErrorCode.CLOSED, "the application left the room"))
        return isKnown && connected
    }

    /** There is a connection: join all rooms again. */
    fun onConnected() {
        connected = true
        unsettled += memberships.values
        if (unsettled.isEmpty()) core.flow()
        memberships.values.toList().forEach(::enqueue)
    }

    /** The connection is gone, and with it all memberships. */
    fun onLost() {
        connected = false
        toJoin.clear()
        unanswered = 0
        unsettled.clear()
        for (membership in memberships.values) {
            membership.queued = false
            membership.stop()
        }
    }

    /** The client is closed: no join resolves any more. Only the memberships of joined rooms stay. */
    fun failWaiting() {
        for (membership in memberships.values.toList()) {
            membership.tokens.stop()
            if (membership.confirmed) membership.resolve(closedError()) else end(membership, closedError())
        }
    }

    /** Hands over a `joined`: a member may have missed messages. Before the answer to a join it says nothing new. */
    fun onJoined(name: String, place: Place) {
        val membership = memberships[name]
        if (membership == null || !membership.joined || place.recovered != false) return
        membership.position = place.start
        core.emit(membership.room.onRecovery, Recovery(false, place.reason))
    }

    /** Hands over a `left`. The one after a `leave` finds no membership. */
    fun onLeft(name: String, reason: String?) {
        val membership = memberships[name]
        if (membership == null || !membership.joined) return
        membership.joined = false
        if (reason == "expired" && membership.tokens.isRenewable) {
            membership.tokens.forget()
            enqueue(membership)
            return
        }
        // A join on its way would make the client a member again.
        if (membership.call != null) core.control(Outgoing("leave", room = name)) { _, _ -> }
        giveUp(membership, SignalboxException(reason ?: "removed", "the server ended the membership"))
    }

    /** Hands over a `presence`. */
    fun onPresence(name: String, frame: JsonObject) {
        val room = memberships[name]?.room ?: return
        room.users = room.users.after(frame)
        core.emit(room.onPresence, room.users)
    }

    /** Returns whether the application gets this message of a room now. A gap leads to another join. */
    fun accept(name: String, message: Message): Boolean {
        val membership = memberships[name]
        val position = membership?.position
        val offset = message.offset
        if (membership == null || position == null || offset == null) return true
        if (offset == position.offset + 1) {
            membership.position = position.copy(offset = offset)
            return true
        }
        if (offset > position.offset && membership.retry == null) enqueue(membership)
        return false
    }

    /** Calls the room's own callbacks. */
    fun deliver(name: String, message: Message) {
        handles[name]?.byType?.emit(message, core.dispatcher)
    }

    private fun add(name: String, options: JoinOptions): Membership {
        val room = handle(name)
        room.lastRecovered = null
        val backoff = Backoff(RETRY_MIN, RETRY_MAX, core.random)
        return Membership(room, options, tokens(name, options), backoff).also { memberships[name] = it }
    }

    private fun change(membership: Membership, options: JoinOptions) {
        if (!membership.options.hasTokenOf(options)) {
            membership.tokens.stop()
            membership.tokens = tokens(membership.room.name, options)
            membership.stopFetching()
        }
        membership.options = options
        membership.rejoin = membership.call != null
    }

    private fun tokens(name: String, options: JoinOptions): Tokens {
        val fetch: (suspend () -> String)? = options.fetchToken?.let { fetch -> { fetch(name) } }
        return Tokens(core.scheduler, core.options.tokenTimeout, options.token, fetch)
    }

    private fun enqueue(membership: Membership) {
        if (!connected || membership.call != null || membership.fetching != null) return
        membership.stopRetrying()
        if (!membership.queued) {
            membership.queued = true
            toJoin += membership
        }
        pump()
    }

    private fun pump() {
        while (unanswered < JOINS_MAX) {
            val membership = toJoin.removeFirstOrNull() ?: return
            membership.queued = false
            if (membership.tokens.isMissing) fetch(membership) else send(membership)
        }
    }

    private fun fetch(membership: Membership) {
        val source = membership.tokens
        var own: Job? = null
        own = core.scheduler.scope.launch {
            val failure = try {
                source.get()
                null
            } catch (failure: TokenFailure) {
                failure
            }
            core.scheduler.locked { if (membership.fetching === own) onToken(membership, failure) }
        }
        membership.fetching = own
    }

    private fun onToken(membership: Membership, failure: TokenFailure?) {
        membership.fetching = null
        when {
            failure == null -> {
                membership.fresh = true
                enqueue(membership)
            }
            failure.final -> giveUp(membership, failure.error)
            else -> {
                core.report(failure.error)
                tryLater(membership)
            }
        }
    }

    private fun send(membership: Membership) {
        val since = membership.position
        var own: PendingCall? = null
        val call = PendingCall(membership.joinFrame()) { ack, error ->
            if (membership.call === own) answered(membership, since, ack, error)
        }
        own = call
        membership.call = call
        unanswered++
        core.calls.control(call)
    }

    private fun answered(membership: Membership, since: Position?, ack: Ack?, error: SignalboxException?) {
        membership.call = null
        unanswered--
        if (error != null) refused(membership, error) else onMember(membership, since, ack?.room)
        settle(membership)
        pump()
    }

    private fun onMember(membership: Membership, since: Position?, place: Place?) {
        membership.joined = true
        membership.confirmed = true
        membership.fresh = false
        membership.backoff.reset()
        val recovery = when {
            since == null -> null
            place == null -> Recovery(false, "no_history")
            else -> Recovery(place.recovered ?: false, place.reason)
        }
        // Old messages that the client asked for are still to come.
        if (recovery?.recovered != true) membership.position = place?.start
        recovery?.let { core.emit(membership.room.onRecovery, it) }
        if (membership.rejoin) {
            membership.rejoin = false
            enqueue(membership)
            return
        }
        membership.room.lastRecovered = recovery?.recovered
        membership.resolve(null)
    }

    private fun refused(membership: Membership, error: SignalboxException) {
        when {
            membership.rejoin -> {
                membership.rejoin = false
                enqueue(membership)
            }
            error.code == "invalid_token" && membership.tokens.isRenewable && !membership.fresh -> {
                // The token was good for an earlier join, and has expired since.
                membership.tokens.forget()
                enqueue(membership)
            }
            error.retryable -> tryLater(membership)
            else -> giveUp(membership, error)
        }
    }

    private fun tryLater(membership: Membership) {
        if (!connected) return
        membership.retry = core.scheduler.after(membership.backoff.next()) {
            membership.retry = null
            enqueue(membership)
        }
    }

    private fun giveUp(membership: Membership, error: SignalboxException) {
        core.emit(membership.room.onLeft, error)
        end(membership, error)
    }

    private fun end(membership: Membership, error: SignalboxException) {
        if (membership.call != null) unanswered--
        membership.stop()
        membership.tokens.stop()
        toJoin.remove(membership)
        memberships -= membership.room.name
        membership.room.users = Presence()
        if (!membership.room.hasCallbacks) handles -= membership.room.name
        membership.resolve(error)
        settle(membership)
        pump()
    }

    private fun settle(membership: Membership) {
        if (membership.call == null && unsettled.remove(membership) && unsettled.isEmpty()) core.flow()
    }

    private companion object {
        /** The most joins without an answer. */
        const val JOINS_MAX = 50

        /** Joins are retried after random times up to these. */
        val RETRY_MIN = 1.seconds
        val RETRY_MAX = 20.seconds
    }
}
