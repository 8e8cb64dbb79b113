package signalbox.client

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.hours
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.cancelAndJoin

class CallsTest {
    @Test
    fun `a call resolves with its answer`() = play {
        val peer = connected()
        val call = send(obj("a" to "<ü>"), to = "bob", once = true)
        val sent = peer.next()
        assertEquals(obj("a" to "<ü>"), sent["payload"])
        assertEquals(listOf("bob", "true"), listOf(sent.string("receiverId"), sent.string("once")))
        peer.ack(sent, obj("status" to "kept", "duplicate" to true, "data" to listOf(1)))
        settle()
        val answer = call.result().getOrThrow()
        assertEquals("kept true [1]", "${answer.status} ${answer.duplicate} ${answer.data}")
    }

    @Test
    fun `values are encoded and decoded`() = play {
        val numbers = ArrayList<List<Int>>()
        client.on("numbers") { numbers += it.payloadAs<List<Int>>() }
        val peer = connected()
        begin { client.send("note", listOf(1, 2), to = "bob") }
        assertEquals(json(listOf(1, 2)), peer.next()["payload"])
        peer.message(listOf(3, 4), type = "numbers")
        settle()
        assertEquals(listOf(listOf(3, 4)), numbers.toList())
    }

    @Test
    fun `a request uses once and returns the data`() = play {
        val peer = connected()
        val call = begin { client.request("votes", json(1)) }
        val sent = peer.next()
        assertEquals("true", sent.string("once"))
        peer.ack(sent, obj("data" to 7))
        settle()
        assertEquals(json(7), call.result().getOrThrow())
    }

    @Test
    fun `each call has a random ID`() = play {
        val peer = connected()
        val ids = List(1_000) {
            send()
            peer.next().string("id").orEmpty()
        }
        assertEquals(1_000, ids.toSet().size)
        assertTrue(ids.all { it.length == 16 })
        assertTrue(ids.map { it.take(3) }.toSet().size > 500, "no counter")
    }

    @Test
    fun `an error of the server reaches the call`() = play {
        val peer = connected()
        val call = send()
        val id = peer.next().string("id")
        peer.send("error", obj("id" to id, "code" to "blank", "message" to "no text", "plugin" to "chat", "retryable" to true))
        settle()
        val error = call.result().exceptionOrNull() as SignalboxException
        assertEquals("blank no text chat true", "${error.code} ${error.message} ${error.plugin} ${error.retryable}")
    }

    @Test
    fun `messages wait for the connection and the rooms`() = play {
        val joining = join("r")
        val calls = List(3) { send(it) }
        assertEquals(3, client.queued)
        val peer = connected()
        peer.answerJoin()
        assertTrue(peer.isQuiet)
        settle()
        assertTrue(joining.result().isSuccess)
        for ((number, call) in calls.withIndex()) {
            val sent = peer.next()
            assertEquals(json(number), sent["payload"])
            peer.ack(sent)
            settle()
            assertTrue(call.result().isSuccess)
        }
    }

    @Test
    fun `messages wait for the rooms no longer than ten seconds`() = play({ answerTimeout = 1.hours }) {
        join("r")
        send()
        val peer = connected()
        assertEquals("join", peer.next().string("type"))
        pass(9_999.milliseconds)
        assertEquals(1, client.queued)
        pass(1.milliseconds)
        assertEquals("note", peer.next().string("type"))
    }

    @Test
    fun `a full queue refuses by number and by bytes`() = play({
        queueMax = 3
        queueBytesMax = 2_000
    }) {
        repeat(2) { send("x".repeat(500)) }
        assertEquals(ErrorCode.QUEUE_FULL, send("x".repeat(1_600)).code())
        send()
        assertEquals(ErrorCode.QUEUE_FULL, send().code())
    }

    @Test
    fun `a slow connection refuses messages instead of keeping them all`() = play({ queueBytesMax = 1_000 }) {
        val peer = connected()
        peer.waiting = 16_000
        assertEquals(ErrorCode.QUEUE_FULL, send().code())
        peer.waiting = 0
        answersNext(peer)
    }

    @Test
    fun `without a queue messages fail while there is no connection`() = play({ failOffline = true }) {
        assertEquals(ErrorCode.OFFLINE, send().code())
        answersNext(connected())
    }

    @Test
    fun `a call without an answer is lost and one with once is sent again`() = play {
        var peer = connected()
        val lost = send(0)
        val first = send(1, once = true)
        val second = send(2, once = true)
        val sent = List(3) { peer.next() }
        peer.drop()
        settle()
        assertEquals(ErrorCode.CONNECTION_LOST, lost.code())
        val third = send(3)
        peer = reconnected()
        val again = List(3) { peer.next() }
        assertEquals(sent.drop(1), again.take(2))
        assertEquals(json(3), again[2]["payload"])
        again.forEach { peer.ack(it) }
        settle()
        assertTrue(listOf(first, second, third).all { it.result().isSuccess })
    }

    @Test
    fun `only a call with once is retried and three times`() = play({ stableAfter = 1.hours }) {
        val peer = connected()
        val plain = send()
        peer.refuse(peer.next(), "unavailable", true)
        settle()
        assertEquals("unavailable", plain.code())
        val call = send(once = true)
        val first = peer.next()
        var sent = first
        for (wait in listOf(500, 1_000, 2_000)) {
            peer.refuse(sent, "unavailable", true)
            settle()
            pass(wait.milliseconds)
            sent = peer.next()
            assertEquals(first, sent)
        }
        peer.refuse(sent, "unavailable", true)
        settle()
        assertEquals("unavailable", call.code())
    }

    @Test
    fun `a call waits ten seconds and its late answer is ignored`() = play {
        val peer = connected()
        val call = send()
        val sent = peer.next()
        pass(10.seconds)
        assertEquals(ErrorCode.TIMEOUT, call.code())
        peer.ack(sent)
        peer.refuse(sent, "late", false)
        peer.message(1)
        assertEquals(1, of("message").size)
        assertEquals(emptyList(), of("error"))
    }

    @Test
    fun `a frame over the limit is not sent`() = play {
        val queued = send("x".repeat(200))
        val peer = connected(obj("limits" to obj("frameBytesMax" to 200)))
        assertEquals(ErrorCode.TOO_LARGE, queued.code())
        assertEquals(ErrorCode.TOO_LARGE, send("ü".repeat(100)).code())
        answersNext(peer)
    }

    @Test
    fun `a call that nobody waits for is not sent`() = play {
        val call = send()
        assertEquals(1, client.queued)
        call.cancelAndJoin()
        assertEquals(0, client.queued)
        assertTrue(connected().isQuiet)
    }

    @Test
    fun `close fails everything that waits`() = play {
        val first = join("r")
        val queued = send()
        var peer = connected()
        peer.answerJoin()
        settle()
        assertTrue(first.result().isSuccess)
        val joining = join("s")
        val sent = send(once = true)
        client.close()
        settle()
        assertEquals(List(4) { ErrorCode.CLOSED }, listOf(joining, queued, sent, send()).map { it.code() })
        // Only a room that was joined is joined again.
        peer = connected()
        assertEquals("r", peer.answerJoin().string("room"))
        settle()
        answersNext(peer)
    }

    @Test
    fun `a page of a history is read back`() = play {
        val peer = connected()
        val reading = begin { client.history("r", before = 9, limit = 2) }
        val asked = peer.next()
        assertEquals(obj("before" to 9, "limit" to 2), asked["payload"])
        val messages = listOf(obj("type" to "note", "offset" to 7), obj("type" to "note", "offset" to 8))
        peer.ack(asked, obj("history" to obj("hasOlder" to true, "messages" to messages)))
        settle()
        val page = reading.result().getOrThrow()
        assertEquals(listOf<Long?>(7, 8), page.messages.map { it.offset })
        assertTrue(page.hasOlder)
    }

    @Test
    fun `frames that are not of the protocol are reported`() = play {
        val peer = connected()
        for (text in listOf("{", "[1]", """{"type":7}""", """{"type":"ack","payload":1}""", """{"type":"left","payload":{}}""")) {
            peer.sendText(text)
        }
        peer.send("error", obj("code" to "rate_limited", "message" to "slow down", "retryable" to true))
        peer.send("brand_new", json(1))
        assertEquals(1, of("message").size)
        assertEquals(List(5) { ErrorCode.INVALID_FRAME } + "rate_limited", of("error"))
        assertFalse(peer.isReleased)
    }
}
