package signalbox.client

import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Job
import kotlinx.coroutines.launch
import kotlinx.serialization.json.JsonObject

/** All rooms of a client. The caller of each method holds the lock, unless it says otherwise. */
internal class Rooms(private val core: Core) {
    private val handles = HashMap<String, Room>()

    /** The wishes in their order. */
    private val wishes = LinkedHashMap<String, Membership>()
    private var connected = false
    private val toJoin = ArrayDeque<Membership>()
    private var unanswered = 0

    /** The rooms that messages wait for after a reconnect. */
    private val unsettled = HashSet<Membership>()

    /** The names of the rooms that the client is in. */
    val joined: List<String> get() = wishes.values.filter { it.joined }.map { it.room.name }.sorted()

    /** Returns the room with this name. */
    fun handle(name: String): Room = handles.getOrPut(name) { Room(name, core) }

    /** Remembers a room that the application uses. */
    fun keep(room: Room) {
        handles.getOrPut(room.name) { room }
    }

    fun membership(name: String): Membership? = wishes[name]

    /** The application wants to be in the room, with these options. The result completes when the client is a member. */
    fun wish(name: String, options: JoinOptions): CompletableDeferred<Unit> {
        val waiter = CompletableDeferred<Unit>()
        val known = wishes[name]
        if (known != null && known.options.isSame(options) && known.joined && known.call == null) {
            waiter.complete(Unit)
            return waiter
        }
        val wish = known ?: add(name, options)
        if (!wish.options.isSame(options)) change(wish, options)
        wish.waiters += waiter
        enqueue(wish)
        return waiter
    }

    /** Nobody waits for this join any more. The wish stays. */
    fun forget(name: String, waiter: CompletableDeferred<Unit>) {
        wishes[name]?.waiters?.remove(waiter)
    }

    /** The application does not want to be in the room. Returns whether the server has to know. */
    fun leave(name: String): Boolean {
        val wish = wishes[name] ?: return false
        val isKnown = wish.joined || wish.call != null
        end(wish, SignalboxException(ErrorCode.CLOSED, "the application left the room"))
        return isKnown && connected
    }

    /** There is a connection: join all rooms again. */
    fun onConnected() {
        connected = true
        unsettled += wishes.values
        if (unsettled.isEmpty()) core.flow()
        wishes.values.toList().forEach(::enqueue)
    }

    /** The connection is gone, and with it all memberships. */
    fun onLost() {
        connected = false
        toJoin.clear()
        unanswered = 0
        unsettled.clear()
        for (wish in wishes.values) {
            wish.queued = false
            wish.stop()
        }
    }

    /** The client is closed: no join resolves any more. Only rooms that were joined stay wishes. */
    fun failWaiting() {
        for (wish in wishes.values.toList()) {
            wish.tokens.stop()
            if (wish.confirmed) wish.resolve(closedError()) else end(wish, closedError())
        }
    }

    /** Hands over a `joined`: a member may have missed messages. Before the answer to a join it says nothing new. */
    fun onJoined(name: String, place: Place) {
        val wish = wishes[name]
        if (wish == null || !wish.joined || place.recovered != false) return
        wish.position = place.start
        core.emit(wish.room.onRecovery, Recovery(false, place.reason))
    }

    /** Hands over a `left`. The one after a `leave` finds no membership. */
    fun onLeft(name: String, reason: String?) {
        val wish = wishes[name]
        if (wish == null || !wish.joined) return
        wish.joined = false
        if (reason == "expired" && wish.tokens.isRenewable) {
            wish.tokens.forget()
            enqueue(wish)
            return
        }
        // A join on its way would make the client a member again.
        if (wish.call != null) core.control(Outgoing("leave", room = name)) { _, _ -> }
        giveUp(wish, SignalboxException(reason ?: "removed", "the server ended the membership"))
    }

    /** Hands over a `presence`. */
    fun onPresence(name: String, frame: JsonObject) {
        val room = wishes[name]?.room ?: return
        room.users = room.users.after(frame)
        core.emit(room.onPresence, room.users)
    }

    /** Returns whether the application gets this message of a room now. A gap leads to another join. */
    fun accept(name: String, message: Message): Boolean {
        val wish = wishes[name]
        val position = wish?.position
        val offset = message.offset
        if (wish == null || position == null || offset == null) return true
        if (offset == position.offset + 1) {
            wish.position = position.copy(offset = offset)
            return true
        }
        if (offset > position.offset && wish.retry == null) enqueue(wish)
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
        return Membership(room, options, tokens(name, options), backoff).also { wishes[name] = it }
    }

    private fun change(wish: Membership, options: JoinOptions) {
        if (!wish.options.hasTokenOf(options)) {
            wish.tokens.stop()
            wish.tokens = tokens(wish.room.name, options)
            wish.stopFetching()
        }
        wish.options = options
        wish.rejoin = wish.call != null
    }

    private fun tokens(name: String, options: JoinOptions): Tokens {
        val fetch: (suspend () -> String)? = options.fetchToken?.let { fetch -> { fetch(name) } }
        return Tokens(core.scheduler, core.options.tokenTimeout, options.token, fetch)
    }

    private fun enqueue(wish: Membership) {
        if (!connected || wish.call != null || wish.fetching != null) return
        wish.stopRetrying()
        if (!wish.queued) {
            wish.queued = true
            toJoin += wish
        }
        pump()
    }

    private fun pump() {
        while (unanswered < JOINS_MAX) {
            val wish = toJoin.removeFirstOrNull() ?: return
            wish.queued = false
            if (wish.tokens.isMissing) fetch(wish) else send(wish)
        }
    }

    private fun fetch(wish: Membership) {
        val source = wish.tokens
        var own: Job? = null
        own = core.scheduler.scope.launch {
            val failure = try {
                source.get()
                null
            } catch (failure: TokenFailure) {
                failure
            }
            core.scheduler.locked { if (wish.fetching === own) onToken(wish, failure) }
        }
        wish.fetching = own
    }

    private fun onToken(wish: Membership, failure: TokenFailure?) {
        wish.fetching = null
        when {
            failure == null -> {
                wish.fresh = true
                enqueue(wish)
            }
            failure.final -> giveUp(wish, failure.error)
            else -> {
                core.report(failure.error)
                tryLater(wish)
            }
        }
    }

    private fun send(wish: Membership) {
        val since = wish.position
        var own: PendingCall? = null
        val call = PendingCall(wish.joinFrame()) { ack, error ->
            if (wish.call === own) answered(wish, since, ack, error)
        }
        own = call
        wish.call = call
        unanswered++
        core.calls.control(call)
    }

    private fun answered(wish: Membership, since: Position?, ack: Ack?, error: SignalboxException?) {
        wish.call = null
        unanswered--
        if (error != null) refused(wish, error) else onMember(wish, since, ack?.room)
        settle(wish)
        pump()
    }

    private fun onMember(wish: Membership, since: Position?, place: Place?) {
        wish.joined = true
        wish.confirmed = true
        wish.fresh = false
        wish.backoff.reset()
        val recovery = when {
            since == null -> null
            place == null -> Recovery(false, "no_history")
            else -> Recovery(place.recovered ?: false, place.reason)
        }
        // Old messages that the client asked for are still to come.
        if (recovery?.recovered != true) wish.position = place?.start
        recovery?.let { core.emit(wish.room.onRecovery, it) }
        if (wish.rejoin) {
            wish.rejoin = false
            enqueue(wish)
            return
        }
        wish.room.lastRecovered = recovery?.recovered
        wish.resolve(null)
    }

    private fun refused(wish: Membership, error: SignalboxException) {
        when {
            wish.rejoin -> {
                wish.rejoin = false
                enqueue(wish)
            }
            error.code == "invalid_token" && wish.tokens.isRenewable && !wish.fresh -> {
                // The token was good for an earlier join, and has expired since.
                wish.tokens.forget()
                enqueue(wish)
            }
            error.retryable -> tryLater(wish)
            else -> giveUp(wish, error)
        }
    }

    private fun tryLater(wish: Membership) {
        if (!connected) return
        wish.retry = core.scheduler.after(wish.backoff.next()) {
            wish.retry = null
            enqueue(wish)
        }
    }

    private fun giveUp(wish: Membership, error: SignalboxException) {
        core.emit(wish.room.onLeft, error)
        end(wish, error)
    }

    private fun end(wish: Membership, error: SignalboxException) {
        if (wish.call != null) unanswered--
        wish.stop()
        wish.tokens.stop()
        toJoin.remove(wish)
        wishes -= wish.room.name
        wish.room.users = Presence()
        if (!wish.room.hasCallbacks) handles -= wish.room.name
        wish.resolve(error)
        settle(wish)
        pump()
    }

    private fun settle(wish: Membership) {
        if (wish.call == null && unsettled.remove(wish) && unsettled.isEmpty()) core.flow()
    }

    private companion object {
        /** The most joins without an answer. */
        const val JOINS_MAX = 50

        /** Joins are retried after random times up to these. */
        val RETRY_MIN = 1.seconds
        val RETRY_MAX = 20.seconds
    }
}
