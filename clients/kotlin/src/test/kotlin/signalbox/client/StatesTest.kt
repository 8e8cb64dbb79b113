package signalbox.client

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.cancelAndJoin

class StatesTest {
    @Test
    fun `the backoff is full jitter up to its bound`() {
        val draws = ArrayDeque(listOf(1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0))
        val count = draws.size
        val backoff = Backoff(500.milliseconds, 20.seconds, { draws.removeFirst() })
        val waits = List(count) { backoff.next().inWholeMilliseconds }
        assertEquals(listOf<Long>(500, 1_000, 1_000, 0, 8_000, 16_000, 20_000), waits)
    }

    @Test
    fun `the backoff has a bound after years`() {
        val backoff = Backoff(500.milliseconds, 20.seconds, { 1.0 })
        repeat(1_000) { backoff.next() }
        assertEquals(20.seconds, backoff.next())
    }

    @Test
    fun `the end decides what follows`() {
        fun codes(vararg codes: Int?) = codes.map { Ending("", code = it).next() }.toSet()
        fun statuses(vararg statuses: Int) = statuses.map { Ending("", status = it).next() }.toSet()
        assertEquals(setOf(Following.NEW_TOKEN), codes(4500, 4504) + statuses(401))
        val final = codes(1002, 1003, 1007, 1008, 1009, 1010, 4501, 4502, 4503, 4505, 4506, 4999)
        assertEquals(setOf(Following.GIVE_UP), final + statuses(400, 403, 404, 405, 410, 426))
        val others = codes(null, 1000, 1001, 1011, 1012, 3000, 4000, 4008, 4009, 4499)
        assertEquals(setOf(Following.RECONNECT), others + statuses(200, 302, 408, 429, 500, 502, 503))
    }

    @Test
    fun `a retry-after counts up to a minute`() {
        val headers = listOf("7", " 7 ", "3600", "-1", "soon", "", null)
        val times = headers.map { retryAfter(it).inWholeSeconds }
        assertEquals(listOf<Long>(7, 7, 60, 0, 0, 0, 0), times)
    }

    @Test
    fun `a client needs the URL of a WebSocket and one identity`() {
        for (url in listOf("http://a/ws", "a/ws", "ws://", "ws://a b/")) {
            assertFailsWith<IllegalArgumentException>(url) { Signalbox(url) { userId = "ann" } }
        }
        assertFailsWith<IllegalArgumentException> { Signalbox("ws://a/ws") {} }
        assertFailsWith<IllegalArgumentException> { Signalbox("ws://a/ws") { token = "secret\n" } }
        assertFailsWith<IllegalArgumentException> {
            Signalbox("ws://a/ws") {
                userId = "ann"
                token { "a" }
            }
        }
        Signalbox("WSS://my_host/ws") { token = "a" }
    }

    @Test
    fun `a client connects once and closes with 1000`() = play {
        val connecting = connect()
        assertFalse(connecting.isCompleted)
        val peer = welcome()
        assertTrue(connecting.result().isSuccess)
        assertTrue(connect().result().isSuccess)
        assertEquals(listOf("ws://127.0.0.1/ws?userId=ann"), transport.urls)
        client.close()
        assertTrue(peer.isClosed)
        assertEquals(listOf("CONNECTING 0 0s", "CONNECTED 0 0s", "CLOSED 0 0s"), of("state"))
    }

    @Test
    fun `a closed client starts again`() = play {
        connected()
        client.close()
        connected()
        assertEquals(2, transport.peers.size)
    }

    @Test
    fun `a client that is closed while it connects leaves nothing`() = play {
        val connecting = connect()
        client.close()
        assertEquals(ErrorCode.CLOSED, connecting.code())
        assertEquals(State.CLOSED, client.state)
    }

    @Test
    fun `a client goes on trying after nobody waits for it`() = play {
        connect().cancelAndJoin()
        welcome()
    }

    @Test
    fun `only a connection that lasts resets the backoff`() = play {
        var peer = connected()
        for ((lasts, wait) in listOf(4_900 to "500ms", 4_900 to "1s", 5_000 to "500ms")) {
            pass(lasts.milliseconds)
            peer.drop()
            assertEquals("DISCONNECTED 0 $wait", of("state").last())
            peer = reconnected()
        }
    }

    @Test
    fun `a refused upgrade waits as long as the server says`() = play {
        transport.refusals += Ending("", status = 503, retryAfter = 7.seconds)
        transport.refusals += Ending("", status = 503, retryAfter = 1.minutes)
        transport.refusals += Ending("", status = 302)
        connect()
        assertEquals("DISCONNECTED 503 7s", of("state").last())
        pass(7.seconds)
        assertEquals("DISCONNECTED 503 1m", of("state").last())
        pass(1.minutes)
        assertEquals("DISCONNECTED 302 2s", of("state").last())
        assertEquals(3, transport.urls.size)
    }

    @Test
    fun `a refusal for good closes the client with an error`() = play {
        val errors = ArrayList<SignalboxException>()
        client.onError { errors += it }
        transport.refusals += Ending("blocked for now", status = 403)
        assertEquals(ErrorCode.REFUSED, connect().code())
        assertEquals("CLOSED 403 0s", of("state").last())
        connected().drop(Ending("kicked", code = 4501))
        assertEquals("CLOSED 4501 0s", of("state").last())
        assertEquals(listOf(403, null), errors.map { it.status })
        assertEquals(listOf(null, 4501), errors.map { it.closeCode })
        assertEquals("blocked for now", errors.first().message)
        assertFalse(errors.first().retryable)
    }

    @Test
    fun `a server without the protocol closes the client`() = play {
        transport.subprotocol = "signalbox.v2"
        assertEquals(ErrorCode.UNSUPPORTED_PROTOCOL, connect().code())
        assertEquals(listOf(ErrorCode.UNSUPPORTED_PROTOCOL), of("error"))
    }

    @Test
    fun `an attempt without a welcome fails after its time`() = play {
        connect()
        pass(9_999.milliseconds)
        assertEquals(State.CONNECTING, client.state)
        pass(1.milliseconds)
        assertEquals(State.DISCONNECTED, client.state)
        assertTrue(peer.isReleased)
        reconnected()
    }

    @Test
    fun `a change of the network ends the wait at most once in five seconds`() = play {
        connected().drop()
        settle()
        client.wake()
        settle()
        welcome().drop()
        settle()
        client.wake()
        settle()
        assertEquals(State.DISCONNECTED, client.state)
        reconnected()
    }

    @Test
    fun `no sequence of failures leads to attempts without a wait`() = play {
        connect()
        for (count in 1..20) {
            assertEquals(count, transport.peers.size)
            peer.drop()
            settle()
            assertEquals(State.DISCONNECTED, client.state)
            passBackoff()
        }
    }

    @Test
    fun `use closes the client in any case`() = play {
        val used = begin { client.use { error("the application fails") } }
        peer.send("welcome", obj())
        settle()
        assertEquals("the application fails", used.result().exceptionOrNull()?.message)
        assertEquals(State.CLOSED, client.state)
    }
}
