package signalbox.client

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList

class CallbacksTest {
    @Test
    fun `callbacks come in order and may call and close`() = play {
        client.room("r").on("note") { events += "room ${it.payload}" }
        client.on("last") {
            client.send("reply", it.payload, to = "bob")
            events += "replied"
            client.close()
        }
        val peer = connected()
        peer.message(1, "r")
        peer.message(2, "r")
        peer.message(3, type = "last")
        settle()
        peer.ack(peer.next())
        assertEquals("CLOSED 0 0s", of("state").last())
        assertEquals(
            listOf("message 1 r null", "room 1", "message 2 r null", "room 2", "replied"),
            events.filterNot { it.startsWith("state") || it.startsWith("message 3") },
        )
    }

    @Test
    fun `a callback that suspends delays those after it`() = play {
        val gate = CompletableDeferred<Unit>()
        client.on("note") {
            events += "begun ${it.payload}"
            gate.await()
            events += "done ${it.payload}"
        }
        val peer = connected()
        peer.message(1)
        peer.message(2)
        settle()
        assertEquals(listOf("1"), of("begun"))
        gate.complete(Unit)
        settle()
        val steps = events.filter { it.startsWith("begun") || it.startsWith("done") }
        assertEquals(listOf("begun 1", "done 1", "begun 2", "done 2"), steps)
    }

    @Test
    fun `a callback that fails is reported and changes nothing else`() = play {
        val failing = client.on("note") { error("a bug") }
        client.onError { throw AssertionError("another bug") }
        val peer = connected()
        peer.message(1)
        assertEquals(listOf(ErrorCode.CALLBACK_FAILED), of("error"))
        failing.end()
        peer.message(2)
        assertEquals(2, of("message").size)
        assertEquals(listOf(ErrorCode.CALLBACK_FAILED), of("error"))
    }

    @Test
    fun `a callback that ends itself gets no later event`() = play {
        lateinit var once: Subscription
        once = client.on("note") {
            events += "once ${it.payload}"
            once.end()
        }
        val peer = connected()
        repeat(3) { peer.message(it) }
        assertEquals(listOf("0"), of("once"))
    }

    @Test
    fun `slow callbacks slow the server down and lose nothing`() = play({ callbacksMax = 10 }) {
        val gate = CompletableDeferred<Unit>()
        client.on("note") { gate.await() }
        val peer = connected()
        repeat(50) { peer.message(it) }
        settle()
        // Silence means nothing while the client does not read.
        pass(200.seconds)
        assertEquals(State.CONNECTED, client.state)
        gate.complete(Unit)
        assertEquals(50, of("message").size)
    }

    @Test
    fun `a client that does not read can be closed`() = play({ callbacksMax = 10 }) {
        val gate = CompletableDeferred<Unit>()
        client.on("note") { gate.await() }
        val peer = connected()
        repeat(50) { peer.message(it) }
        settle()
        client.close()
        settle()
        assertTrue(peer.isReleased)
        gate.complete(Unit)
        assertEquals("CLOSED 0 0s", of("state").last())
        assertTrue(of("message").size < 10, "no message follows close")
    }

    @Test
    fun `a dispatcher that runs at once does not call back in the middle of the work`() = play({
        callbackDispatcher = Dispatchers.Unconfined
    }) {
        client.on("note") { client.close() }
        val peer = connected()
        peer.message(1)
        peer.message(2)
        assertEquals("CLOSED 0 0s", of("state").last())
    }

    @Test
    fun `a flow has the messages in order and ends with its collector`() = play {
        val collecting = begin { client.messages("note").take(2).toList().map { it.payload } }
        val others = begin { client.room("r").messages().toList() }
        val peer = connected()
        repeat(3) { peer.message(it, "r") }
        settle()
        assertEquals(listOf(json(0), json(1)), collecting.result().getOrThrow())
        others.cancelAndJoin()
        peer.message(4, "r")
        assertEquals(4, of("message").size)
        assertEquals(emptyList(), of("error"))
    }

    @Test
    fun `flows tell of states, errors and users`() = play {
        val states = begin { client.stateChanges().take(2).toList().map { it.state } }
        val errors = begin { client.errors().take(1).toList().map { it.code } }
        val users = begin { client.room("r").presenceChanges().take(1).toList().map { it.total } }
        val peer = connected()
        member(peer, "r")
        peer.send("presence", obj("room" to "r", "total" to 3))
        peer.sendText("{")
        settle()
        assertEquals(listOf(State.CONNECTING, State.CONNECTED), states.result().getOrThrow())
        assertEquals(listOf(ErrorCode.INVALID_FRAME), errors.result().getOrThrow())
        assertEquals(listOf(3), users.result().getOrThrow())
    }
}
