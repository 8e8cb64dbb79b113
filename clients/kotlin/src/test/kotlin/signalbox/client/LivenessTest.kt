package signalbox.client

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.hours
import kotlin.time.Duration.Companion.minutes
import kotlin.time.Duration.Companion.seconds

class LivenessTest {
    @Test
    fun `a silent connection is asked and then replaced`() = play {
        val peer = connected(obj("heartbeatIntervalMs" to 3_000))
        pass(2.seconds)
        peer.message(1)
        settle()
        pass(2.seconds)
        assertTrue(peer.isQuiet)
        pass(1.seconds)
        assertEquals("heartbeat", peer.next().string("type"))
        pass(10.seconds)
        assertEquals(State.DISCONNECTED, client.state)
        reconnected()
    }

    @Test
    fun `silence is counted again after an answer`() = play({
        heartbeatInterval = 1.seconds
        heartbeatTimeout = 1.minutes
    }) {
        val peer = connected()
        repeat(5) {
            pass(1.seconds)
            assertEquals("heartbeat", peer.next().string("type"))
            peer.message(it)
            settle()
        }
    }

    @Test
    fun `a sleep leads to a question at once with five seconds`() = play {
        val peer = connected()
        slept = 1.hours
        pass(25.seconds)
        assertEquals("heartbeat", peer.next().string("type"))
        pass(5.seconds)
        assertEquals(State.DISCONNECTED, client.state)
    }

    @Test
    fun `a connection that answers after a sleep is kept`() = play {
        val peer = connected()
        slept = 1.hours
        pass(25.seconds)
        peer.ack(peer.next())
        pass(5.seconds)
        assertEquals(State.CONNECTED, client.state)
    }
}
