package signalbox.client

import kotlin.coroutines.cancellation.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Deferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.withContext
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put

/** The world of a client, as far as a test replaces it. */
internal class World(
    val webSockets: Transport,
    val streams: Transport,
    val dispatcher: CoroutineDispatcher = Dispatchers.Default,
    val clock: Clock = SystemClock,
    val random: () -> Double = { kotlin.random.Random.nextDouble() },
)

/** The parts of a client, and the calls of the application. Properties need the lock. */
internal class Core(url: String, val options: Options, world: World) {
    val random = world.random
    val scheduler = Scheduler(world.dispatcher, world.clock)
    val dispatcher = Dispatcher(scheduler, options.callbackDispatcher, options.callbacksMax, ::report)
    val calls = Calls(scheduler, options, random)
    val rooms = Rooms(this)
    val link = Link(this, url, world)

    var state = State.DISCONNECTED
        private set

    val byType = MessageCallbacks(scheduler)
    val onState = Callbacks<StateChange>(scheduler)
    val onError = Callbacks<SignalboxException>(scheduler)
    val onRecovery = Callbacks<Recovery>(scheduler)

    /** Calls the functions of the application. The caller holds the lock. */
    fun <T> emit(callbacks: Callbacks<T>, event: T) {
        dispatcher.emit(callbacks, event)
    }

    /** Changes the state. The caller holds the lock. */
    fun change(change: StateChange) {
        state = change.state
        emit(onState, change)
    }

    /** Hands an error to the application that no call gets. The caller holds the lock. */
    fun report(error: SignalboxException) {
        if (state != State.CLOSED) emit(onError, error)
    }

    /** Sends a frame about the connection itself. The caller holds the lock. */
    fun control(frame: Outgoing, answered: (Ack?, SignalboxException?) -> Unit) {
        calls.control(PendingCall(frame, answered))
    }

    /** Lets messages out: the rooms were joined again. The caller holds the lock. */
    fun flow() {
        link.stopSettling()
        calls.flow()
    }

    suspend fun join(room: Room, options: JoinOptions) {
        currentCoroutineContext().ensureActive()
        val waiter = scheduler.locked {
            if (state == State.CLOSED) throw closedError()
            rooms.keep(room)
            rooms.request(room.name, options)
        }
        await(waiter) { rooms.forget(room.name, waiter) }
    }

    suspend fun leave(room: String) {
        val result = CompletableDeferred<Unit>()
        scheduler.locked {
            if (!rooms.leave(room)) return
            control(Outgoing("leave", room = room)) { _, error ->
                val isOut = error == null || error.code == ErrorCode.CONNECTION_LOST || error.code == ErrorCode.CLOSED
                if (isOut) result.complete(Unit) else result.completeExceptionally(error)
            }
        }
        await(result) {}
    }

    suspend fun history(room: String, before: Long?, limit: Int?): Page {
        val payload = buildJsonObject {
            before?.let { put("before", it) }
            limit?.let { put("limit", it) }
        }
        val ack = ask(Outgoing("history", payload, room = room))
        return try {
            page(ack.history ?: throw InvalidFrameException("the answer has no history"))
        } catch (error: InvalidFrameException) {
            throw SignalboxException(ErrorCode.INVALID_FRAME, error.message.orEmpty(), cause = error)
        }
    }

    /** Sends a frame, and returns its answer. */
    suspend fun ask(frame: Outgoing): Ack {
        currentCoroutineContext().ensureActive()
        val result = CompletableDeferred<Ack>()
        val call = PendingCall(frame) { ack, error ->
            if (ack != null) result.complete(ack) else result.completeExceptionally(error ?: closedError())
        }
        scheduler.locked {
            if (state == State.CLOSED) throw closedError()
            calls.start(call)
        }
        return await(result) { calls.forget(call) }
    }

    /** Waits for [result]. If the caller is cancelled, it calls [forget] with the lock held. */
    suspend fun <T> await(result: Deferred<T>, forget: () -> Unit): T = try {
        // The application goes on in a dispatcher, never in the middle of the work of the client.
        withContext(scheduler.dispatcher) { result.await() }
    } catch (cancelled: CancellationException) {
        scheduler.locked(forget)
        throw cancelled
    }
}
