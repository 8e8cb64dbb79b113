package signalbox.client

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.withContext

class TokensTest {
    /** A token callback that counts its calls. An answer of null fails. */
    private class Issuer(vararg answers: String?) {
        private val left = ArrayDeque(answers.toList())
        var calls = 0

        fun get(): String {
            calls++
            val answer = if (left.size > 1) left.removeFirst() else left.first()
            if (answer == "denied") throw TokenDeniedException("no token")
            return answer ?: error("down")
        }
    }

    @Test
    fun `a token is kept until the server refuses it`() {
        val issuer = Issuer("one", "two")
        play({ token { issuer.get() } }) {
            connected().drop()
            reconnected().drop(Ending("expired", code = 4500))
            reconnected()
            assertEquals(listOf<String?>("one", "one", "two"), transport.tokens)
            assertEquals("ws://127.0.0.1/ws", transport.urls.first())
        }
    }

    @Test
    fun `a token that is refused three times in a row closes the client`() {
        val issuer = Issuer("bad")
        play({ token { issuer.get() } }) {
            for (status in listOf(401, 503, 401, 401)) transport.refusals += Ending("", status = status)
            val connecting = connect()
            repeat(3) { passBackoff() }
            assertEquals("CLOSED 401 0s", of("state").last())
            assertEquals(ErrorCode.UNAUTHORIZED, connecting.code())
            assertEquals(3, issuer.calls)
        }
    }

    @Test
    fun `a refused token without a callback closes the client`() = play({ token = "bad" }) {
        transport.refusals += Ending("", status = 401)
        assertEquals(ErrorCode.UNAUTHORIZED, connect().code())
        assertEquals(listOf(ErrorCode.UNAUTHORIZED), of("error"))
    }

    @Test
    fun `a callback that fails is called again and one that denies is not`() {
        val issuer = Issuer(null, "denied")
        play({ token { issuer.get() } }) {
            connect()
            assertEquals("DISCONNECTED 0 500ms", of("state").last())
            pass(500.milliseconds)
            assertEquals("CLOSED 0 0s", of("state").last())
            assertEquals(listOf(ErrorCode.TOKEN_FAILED, ErrorCode.UNAUTHORIZED), of("error"))
            assertEquals(0, transport.urls.size)
        }
    }

    @Test
    fun `a token that no header can have is one that failed`() {
        val issuer = Issuer("one\n", "two")
        play({ token { issuer.get() } }) {
            connect()
            assertEquals(listOf(ErrorCode.TOKEN_FAILED), of("error"))
            reconnected()
            assertEquals(listOf<String?>("two"), transport.tokens)
        }
    }

    @Test
    fun `a callback has thirty seconds and never runs twice`() {
        val gate = CompletableDeferred<Unit>()
        var calls = 0
        val hang: suspend () -> String = {
            calls++
            withContext(NonCancellable) { gate.await() }
            "late"
        }
        play({ token(hang) }) {
            connect()
            pass(30.seconds)
            assertEquals("DISCONNECTED 0 500ms", of("state").last())
            pass(500.milliseconds + 30.seconds)
            assertEquals("DISCONNECTED 0 1s", of("state").last())
            gate.complete(Unit)
            reconnected()
            assertEquals(1, calls)
            assertEquals(listOf<String?>("late"), transport.tokens)
        }
    }

    @Test
    fun `a callback that runs ends with the client`() = play({ token { CompletableDeferred<String>().await() } }) {
        connect()
        client.close()
        assertEquals(0, transport.urls.size)
    }

    @Test
    fun `a token that expires is replaced on the connection`() {
        val issuer = Issuer("one", null, "two")
        play({ token { issuer.get() } }) {
            val peer = connected()
            peer.send("token_expiring", obj("expiresInMs" to 30_000))
            assertEquals(listOf(ErrorCode.TOKEN_FAILED), of("error"))
            pass(500.milliseconds)
            val request = peer.next()
            assertEquals("two", request.string("payload"))
            peer.refuse(request, "unavailable", true)
            pass(1.seconds)
            peer.ack(peer.next())
            settle()
            peer.drop()
            reconnected()
            assertEquals("two", transport.tokens.last())
            assertEquals(3, issuer.calls)
        }
    }

    @Test
    fun `a renewal that is denied closes the client`() {
        val issuer = Issuer("one", "denied")
        play({ token { issuer.get() } }) {
            connected().send("token_expiring", obj("expiresInMs" to 30_000))
            assertEquals("CLOSED 0 0s", of("state").last())
            assertEquals(listOf(ErrorCode.UNAUTHORIZED), of("error"))
        }
    }

    @Test
    fun `a token that lives shortly is replaced after half of its time`() {
        val issuer = Issuer("one")
        play({ token { issuer.get() } }) {
            val peer = connected()
            peer.send("token_expiring", obj("expiresInMs" to 14_000))
            settle()
            val request = peer.next()
            // The server announces the end of the new token before its answer, and once more later.
            peer.send("token_expiring", obj("expiresInMs" to 14_000))
            peer.ack(request)
            settle()
            pass(7.seconds)
            peer.ack(peer.next())
            peer.send("token_expiring", obj("expiresInMs" to 100))
            settle()
            pass(1.seconds)
            peer.ack(peer.next())
            settle()
        }
    }
}
