package signalbox.client

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.cancelAndJoin

class RoomsTest {
    @Test
    fun `a room is joined again with its position after each reconnect`() = play {
        var peer = connected()
        assertNull(member(peer, "r", obj("epoch" to "e", "offset" to 7))["payload"])
        peer.message(8, "r", 8)
        settle()
        peer.drop()
        peer = reconnected()
        val join = peer.answerJoin(obj("epoch" to "e", "offset" to 10, "recovered" to true, "count" to 2))
        assertEquals(obj("since" to obj("epoch" to "e", "offset" to 8)), join["payload"])
        peer.message(9, "r", 9)
        peer.message(10, "r", 10)
        assertEquals(listOf("8 r 8", "9 r 9", "10 r 10"), of("message"))
        peer.drop()
        peer = reconnected()
        peer.answerJoin(obj("epoch" to "f", "offset" to 2, "recovered" to false, "reason" to "epoch"))
        peer.message(3, "r", 3)
        assertEquals("3 r 3", of("message").last())
        assertEquals(listOf("r true null", "r false epoch"), of("recovered"))
        assertTrue(events.indexOf("recovered r false epoch") < events.indexOf("message 3 r 3"))
    }

    @Test
    fun `the old messages of a late comer are no repetitions`() = play {
        val peer = connected()
        val joining = join("r", last = 2)
        val join = peer.answerJoin(obj("epoch" to "e", "offset" to 7, "recovered" to true, "count" to 2))
        assertEquals(obj("last" to 2), join["payload"])
        settle()
        assertNull(joining.result().getOrThrow().recovered)
        peer.message(6, "r", 6)
        peer.message(7, "r", 7)
        assertEquals(listOf("6 r 6", "7 r 7"), of("message"))
    }

    @Test
    fun `repetitions are dropped and a gap leads to another join`() = play {
        val peer = connected()
        member(peer, "r", obj("epoch" to "e", "offset" to 1))
        for (offset in listOf<Long>(2, 2, 1, 5, 6)) peer.message(offset, "r", offset)
        settle()
        val join = peer.answerJoin(obj("epoch" to "e", "offset" to 6, "recovered" to true, "count" to 4))
        assertEquals(obj("since" to obj("epoch" to "e", "offset" to 2)), join["payload"])
        for (offset in 3L..6L) peer.message(offset, "r", offset)
        assertEquals((2..6).map { "$it r $it" }, of("message"))
    }

    @Test
    fun `a member that missed messages learns it from joined`() = play {
        val peer = connected()
        watch("r")
        join("r")
        val join = peer.next()
        // The one before the answer belongs to the join.
        peer.send("joined", obj("room" to "r", "epoch" to "e", "offset" to 1, "recovered" to false, "reason" to "epoch"))
        peer.ack(join, obj("room" to obj("epoch" to "e", "offset" to 1)))
        peer.send("joined", obj("room" to "r", "epoch" to "e", "offset" to 9, "recovered" to false, "reason" to "expired"))
        peer.message(10, "r", 10)
        assertEquals(listOf("10 r 10"), of("message"))
        assertEquals(listOf("r false expired"), of("recovered"))
    }

    @Test
    fun `at most fifty joins wait for their answers in the order of the memberships`() = play {
        repeat(60) { join("r$it") }
        val peer = connected()
        val joins = List(50) { peer.next() }
        assertEquals(List(50) { "r$it" }, joins.map { it.string("room") })
        assertTrue(peer.isQuiet)
        peer.ack(joins.first())
        settle()
        val last = peer.next()
        assertEquals("r50", last.string("room"))
        assertTrue(peer.isQuiet)
        (joins.drop(1) + last).forEach { peer.ack(it) }
        settle()
        for (number in 51 until 60) assertEquals("r$number", peer.answerJoin().string("room"))
        settle()
        assertEquals(60, client.joinedRooms.size)
    }

    @Test
    fun `a join that may succeed later is retried and one that is refused ends the membership`() = play {
        val peer = connected()
        watch("r")
        val joining = join("r")
        for (wait in listOf(1, 2, 4)) {
            peer.refuse(peer.next(), "room_full", true)
            settle()
            pass(wait.seconds)
        }
        peer.refuse(peer.next(), "forbidden_room", false)
        settle()
        assertEquals("forbidden_room", joining.code())
        assertEquals(listOf("r forbidden_room"), of("left"))
        peer.drop()
        answersNext(reconnected())
    }

    @Test
    fun `the membership stays after nobody waits for its join`() = play {
        join("r").cancelAndJoin()
        connected().answerJoin()
        settle()
        assertEquals(listOf("r"), client.joinedRooms)
    }

    @Test
    fun `the server can end a membership`() = play {
        val peer = connected()
        member(peer, "r")
        peer.send("left", obj("room" to "r"))
        assertEquals(listOf("r removed"), of("left"))
        assertEquals(emptyList(), client.joinedRooms)
        assertFalse(client.room("r").isJoined)
    }

    @Test
    fun `a left after a leave says nothing about the next join`() = play {
        val peer = connected()
        member(peer, "r")
        val leaving = begin { client.leave("r") }
        val leave = peer.next()
        assertEquals("leave", leave.string("type"))
        val joining = join("r")
        val join = peer.next()
        peer.send("left", obj("room" to "r"))
        peer.ack(leave)
        peer.ack(join)
        settle()
        assertTrue(leaving.result().isSuccess && joining.result().isSuccess)
        assertEquals(listOf("r"), client.joinedRooms)
        assertEquals(emptyList(), of("left"))
    }

    @Test
    fun `a room token that expires is replaced`() = play {
        val tokens = ArrayDeque(listOf("one", "two"))
        val peer = connected()
        join("r", fetchToken = { tokens.removeFirst() + it })
        val first = peer.answerJoin(obj("epoch" to "e", "offset" to 3))
        assertEquals(obj("token" to "oner"), first["payload"])
        peer.send("left", obj("room" to "r", "reason" to "expired"))
        settle()
        val second = peer.answerJoin(obj("epoch" to "e", "offset" to 3, "recovered" to true))
        assertEquals(obj("since" to obj("epoch" to "e", "offset" to 3), "token" to "twor"), second["payload"])
    }

    @Test
    fun `an expired room token without a callback ends the membership`() = play {
        val peer = connected()
        member(peer, "r")
        peer.send("left", obj("room" to "r", "reason" to "expired"))
        assertEquals(listOf("r expired"), of("left"))
    }

    @Test
    fun `a room token that is denied ends the membership`() = play {
        connected()
        assertEquals(ErrorCode.UNAUTHORIZED, join("r", fetchToken = { throw TokenDeniedException("no") }).code())
    }

    @Test
    fun `joining twice changes the options of one membership`() = play {
        var peer = connected()
        val first = join("r")
        val join = peer.next()
        val second = join("r", presence = true)
        peer.ack(join)
        settle()
        assertEquals(obj("presence" to true), peer.answerJoin()["payload"])
        settle()
        assertTrue(first.result().isSuccess && second.result().isSuccess)
        peer.drop()
        peer = reconnected()
        assertEquals(obj("presence" to true), peer.answerJoin()["payload"])
        settle()
        answersNext(peer)
    }

    @Test
    fun `presence is merged and stays until the next list`() = play {
        fun user(name: String) = obj("userId" to name, "connections" to 1)
        val peer = connected()
        member(peer, "r")
        peer.send("presence", obj("room" to "r", "total" to 2, "members" to listOf(user("ann"), user("bob"))))
        peer.send("presence", obj("room" to "r", "total" to 2, "joined" to listOf(user("eve")), "left" to listOf("bob")))
        peer.send("presence", obj("room" to "r", "total" to 2000))
        peer.send("presence", obj("room" to "r", "total" to 2001, "joined" to listOf(user("bob"))))
        peer.send("presence", obj("room" to "r", "total" to 1, "members" to listOf(user("ann"))))
        assertEquals(listOf("2 [ann, bob]", "2 [ann, eve]", "2000 null", "2001 null", "1 [ann]"), of("presence"))
        peer.drop()
        settle()
        reconnected()
        assertEquals(1, client.room("r").presence.total)
    }

    @Test
    fun `the messages of the user are recovered`() = play {
        var peer = connected(obj("user" to obj("epoch" to "u", "offset" to 4)))
        peer.message(5, offset = 5)
        peer.message(55, offset = 5)
        peer.message(0)
        settle()
        peer.drop()
        peer = reconnected(obj("user" to obj("epoch" to "u", "offset" to 6, "recovered" to true, "count" to 1)))
        assertEquals("ws://127.0.0.1/ws?userId=ann&since=u%3A5", transport.urls.last())
        peer.message(6, offset = 6)
        // A gap: the client comes back for the missing ones.
        peer.message(8, offset = 8)
        settle()
        reconnected(obj("user" to obj("epoch" to "v", "offset" to 1, "recovered" to false, "reason" to "epoch")))
        assertEquals("ws://127.0.0.1/ws?userId=ann&since=u%3A6", transport.urls.last())
        assertEquals(listOf("- true null", "- false epoch"), of("recovered"))
        assertEquals(listOf("5 null 5", "0 null null", "6 null 6"), of("message"))
    }

    @Test
    fun `a user who missed messages learns it from joined`() = play {
        val peer = connected(obj("user" to obj("epoch" to "u", "offset" to 4)))
        peer.send("joined", obj("user" to obj("epoch" to "v", "offset" to 0, "recovered" to false, "reason" to "epoch")))
        peer.message(1, offset = 1)
        assertEquals(1, of("message").size)
        assertEquals(listOf("- false epoch"), of("recovered"))
    }
}
