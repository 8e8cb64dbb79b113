package signalbox.client

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.hours
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds

class FallbackTest {
    private fun playWithFallback(configure: Options.() -> Unit = {}, scene: suspend Scene.() -> Unit) = play(
        configure = {
            fallback = true
            configure()
        },
        scene,
    )

    private fun refusal(status: Int, answered: Boolean = false) = Ending("no", status = status, answered = answered)

    private val Scene.tried: String get() = attempts.joinToString(" ") { if (it == TransportKind.SSE) "sse" else "ws" }

    private val Scene.waits: List<String>
        get() = of("state").filter { it.startsWith("DISCONNECTED") }.map { it.substringAfterLast(' ') }

    @Test
    fun `attempts change the transport while neither works, and the long waits come before WebSockets`() = playWithFallback {
        repeat(4) { transport.refusals += refusal(502) }
        repeat(3) { streams.refusals += refusal(504) }
        connect()
        repeat(7) { passBackoff() }
        welcome()
        assertEquals("ws sse ws sse ws sse ws sse", tried)
        assertEquals(listOf("500ms", "1s", "500ms", "4s", "500ms", "16s", "500ms"), waits)
    }

    @Test
    fun `without the fallback only WebSockets are tried`() = play {
        repeat(3) { transport.refusals += refusal(502) }
        connect()
        repeat(3) { passBackoff() }
        welcome()
        assertEquals("ws ws ws ws", tried)
    }

    @Test
    fun `an answer of the server keeps the transport`() = playWithFallback {
        transport.refusals += listOf(refusal(503, answered = true), refusal(503, answered = true), refusal(502))
        streams.refusals += listOf(refusal(503, answered = true), refusal(429, answered = true))
        connect()
        repeat(5) { passBackoff() }
        welcome()
        assertEquals("ws ws ws sse sse sse", tried)
    }

    @Test
    fun `a status that a proxy may have sent counts only with both transports`() = playWithFallback {
        transport.refusals += listOf(refusal(403), refusal(403))
        streams.refusals += listOf(refusal(502), refusal(404, answered = true))
        connect()
        repeat(3) { passBackoff() }
        assertEquals("ws sse ws sse", tried)
        assertEquals("CLOSED 404 0s", of("state").last())
        assertEquals(listOf(ErrorCode.REFUSED), of("error"))
    }

    @Test
    fun `a refusal of the server closes the client at once`() = playWithFallback {
        transport.refusals += refusal(502)
        streams.refusals += refusal(403, answered = true)
        connect()
        passBackoff()
        assertEquals("CLOSED 403 0s", of("state").last())
    }

    @Test
    fun `a client with a WebSocket keeps to it for three failures`() = playWithFallback {
        connected().drop()
        transport.refusals += listOf(refusal(502), refusal(502), refusal(503, answered = true))
        repeat(3) { transport.refusals += refusal(502) }
        streams.refusals += refusal(502)
        repeat(8) { passBackoff() }
        welcome()
        assertEquals("ws ws ws ws ws ws ws sse ws", tried)
    }

    @Test
    fun `after server-sent events a WebSocket is tried at the first reconnect after ten minutes`() =
        playWithFallback({ heartbeatInterval = 1.hours }) {
            transport.refusals += listOf(refusal(502), refusal(502))
            connect()
            passBackoff()
            welcome().drop()
            val peer = reconnected()
            assertEquals("ws sse sse", tried)
            pass(10.minutes)
            assertEquals(State.CONNECTED, client.state)
            peer.drop()
            passBackoff()
            reconnected()
            assertEquals("ws sse sse ws sse", tried)
        }

    @Test
    fun `a proxy that holds the events back is named`() = playWithFallback {
        transport.refusals += refusal(502)
        connect()
        passBackoff()
        pass(10.seconds)
        assertEquals(listOf(ErrorCode.BUFFERED), of("error"))
        passBackoff()
        welcome()
        assertEquals("ws sse ws", tried)
    }

    @Test
    fun `the time of a call begins when its frame leaves`() = playWithFallback({ heartbeatInterval = 1.hours }) {
        transport.refusals += refusal(502)
        connect()
        passBackoff()
        val peer = welcome()
        val call = send()
        pass(20.seconds)
        assertTrue(peer.listener!!.leaves(peer.calls.single()))
        pass(9.seconds)
        assertTrue(!call.isCompleted)
        pass(1.seconds)
        assertEquals(ErrorCode.TIMEOUT, call.code())
        assertTrue(!peer.listener!!.leaves(peer.calls.single()), "nobody waits for it any more")
    }

    @Test
    fun `every byte is a sign of life`() = playWithFallback {
        transport.refusals += refusal(502)
        connect()
        passBackoff()
        val peer = welcome()
        repeat(5) {
            pass(20.seconds)
            peer.listener!!.heard()
        }
        assertTrue(peer.isQuiet)
        pass(25.seconds)
        assertEquals("heartbeat", peer.next().string("type"))
    }
}
