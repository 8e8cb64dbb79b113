package signalbox.client

import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket as TcpSocket
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.LinkedBlockingQueue
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put

class OkHttpStreamsTest {
    private class Received(val line: String, val headers: List<String>, val body: String)

    /** A server of HTTP that answers a GET with [opening], and POSTs with [answers] in their order, then with 202. */
    private class Server(private val opening: String = STREAM, answers: List<String> = emptyList()) : AutoCloseable {
        private val listener = ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"))
        private val answers = ConcurrentLinkedQueue(answers)
        val requests = LinkedBlockingQueue<Received>()
        val streams = LinkedBlockingQueue<TcpSocket>()
        private val sockets = ConcurrentLinkedQueue<TcpSocket>()
        val url = "ws://127.0.0.1:${listener.localPort}/a/ws?userId=ann"

        init {
            thread(isDaemon = true) {
                while (!listener.isClosed) {
                    val socket = runCatching { listener.accept() }.getOrNull() ?: return@thread
                    sockets += socket
                    thread(isDaemon = true) { runCatching { serve(socket) } }
                }
            }
        }

        private fun serve(socket: TcpSocket) {
            val reader = socket.getInputStream().bufferedReader()
            while (true) {
                val head = generateSequence(reader::readLine).takeWhile { it.isNotEmpty() }.toList()
                if (head.isEmpty()) return
                val length = head.firstOrNull { it.startsWith("Content-Length: ") }?.substringAfter(": ")?.toInt() ?: 0
                val body = String(CharArray(length) { reader.read().toChar() })
                requests += Received(head.first(), head.drop(1), body)
                val isStream = head.first().startsWith("GET")
                val answer = if (isStream) opening else answers.poll() ?: answer("202 Accepted")
                socket.getOutputStream().write(answer.toByteArray())
                if (isStream) streams += socket
            }
        }

        override fun close() {
            listener.close()
            sockets.forEach(TcpSocket::close)
        }
    }

    private class Heard : SocketListener {
        val refused = LinkedBlockingQueue<String>()
        val left = LinkedBlockingQueue<String>()
        val unwanted = ConcurrentLinkedQueue<PendingCall>()

        override fun heard() {}

        override fun leaves(call: PendingCall): Boolean {
            left += call.id
            return call !in unwanted
        }

        override fun refuse(call: PendingCall, error: SignalboxException) {
            refused += "${error.code} ${error.retryable}"
        }
    }

    private fun call(payload: Int) = PendingCall(Outgoing("note", JsonPrimitive(payload))) { _, _ -> }

    private suspend fun open(server: Server, timeout: Duration = 10.seconds, token: String? = null) =
        OkHttpStreams(null, timeout).open(server.url, token)

    private fun begin(socket: Socket): Heard {
        val payload = buildJsonObject {
            put("connectionId", "c/1")
            put("sendKey", "key")
        }
        socket.welcomed(Welcome(payload))
        return Heard().also(socket::listen)
    }

    private suspend fun <T : Any> LinkedBlockingQueue<T>.next(): T = withContext(Dispatchers.IO) { take() }

    @Test
    fun `frames are events and each frame of the client is a POST`() = runBlocking {
        Server().use { server ->
            val socket = open(server, token = "secret")
            val get = server.requests.next()
            assertEquals("GET /a/sse?userId=ann HTTP/1.1", get.line)
            assertTrue("Authorization: Bearer secret" in get.headers)
            assertTrue("Accept: text/event-stream" in get.headers)
            server.streams.next().getOutputStream().write(
                ": hello\n\nevent: weather\ndata: rain\n\ndata: one\n\nevent: message\ndata: two\n\n".toByteArray(),
            )
            assertEquals(listOf("one", "two"), listOf(socket.receive(), socket.receive()))
            begin(socket)
            socket.send(call(1))
            val post = server.requests.next()
            assertEquals("POST /a/sse/c%2F1 HTTP/1.1", post.line)
            assertTrue("Authorization: Bearer key" in post.headers)
            assertTrue("Content-Type: application/json" in post.headers)
            assertTrue("\"payload\":1" in post.body)
            socket.release()
        }
    }

    @Test
    fun `a frame for which there was no room is sent again before the next one`() = runBlocking {
        Server(answers = listOf(answer("429 Too Many Requests", "Retry-After: 0"))).use { server ->
            val socket = open(server)
            server.requests.next()
            begin(socket)
            repeat(2) { socket.send(call(it)) }
            val bodies = List(3) { server.requests.next().body.substringAfter("\"payload\":").substringBefore(',') }
            assertEquals(listOf("0", "0", "1"), bodies)
            socket.release()
        }
    }

    @Test
    fun `a frame that the server did not take fails alone`() = runBlocking {
        val answers = listOf(answer("503 Unavailable", "Retry-After: 0"), answer("413 Too Large"))
        Server(answers = answers).use { server ->
            val socket = open(server)
            val heard = begin(socket)
            repeat(3) { socket.send(call(it)) }
            assertEquals("connection_lost true", heard.refused.next())
            assertEquals("too_large false", heard.refused.next())
            repeat(4) { server.requests.next() }
            assertTrue(!socket.over.isCompleted)
            socket.release()
            assertTrue(server.requests.isEmpty(), "no frame is sent twice")
        }
    }

    @Test
    fun `another answer to a frame, or none, ends the connection`() = runBlocking {
        for (answer in listOf(answer("404 Not Found"), "")) {
            Server(answers = listOf(answer)).use { server ->
                val socket = open(server, timeout = 500.milliseconds)
                begin(socket)
                socket.send(call(1))
                val end = assertFailsWith<EndedException> { socket.receive() }.ending
                assertTrue(end.reason.startsWith("a POST"), end.reason)
                assertEquals(null, end.code)
                socket.release()
            }
        }
    }

    @Test
    fun `a frame for whose answer nobody waits is not sent`() = runBlocking {
        Server().use { server ->
            val socket = open(server)
            server.requests.next()
            val heard = begin(socket)
            val unwanted = call(1)
            heard.unwanted += unwanted
            socket.send(unwanted)
            socket.send(call(2))
            assertTrue("\"payload\":2" in server.requests.next().body)
            socket.release()
        }
    }

    @Test
    fun `at most a thousand frames wait for their turn`() = runBlocking {
        Server(answers = listOf("")).use { server ->
            val socket = open(server)
            val heard = begin(socket)
            socket.send(call(0))
            heard.left.next()
            repeat(1_000) { socket.send(call(it)) }
            assertTrue(heard.refused.isEmpty())
            assertTrue(socket.waiting > 0)
            socket.send(call(1))
            assertEquals("queue_full true", heard.refused.next())
            socket.release()
        }
    }

    @Test
    fun `the event close has the code, and an end without it has none`() = runBlocking {
        val close = "event: close\ndata: {\"code\":4000,\"reason\":\"because\"}\n\n"
        for ((text, code) in listOf(close to 4000, "data: half" to null)) {
            Server().use { server ->
                val socket = open(server)
                val stream = server.streams.next()
                stream.getOutputStream().write(text.toByteArray())
                stream.shutdownOutput()
                val end = assertFailsWith<EndedException> { socket.receive() }.ending
                assertEquals(code, end.code)
                assertEquals(code != null, end.answered)
                socket.release()
            }
        }
    }

    @Test
    fun `an answer that is no stream of events fails the attempt, also if it may be repeated at once`() = runBlocking {
        val refusals = listOf(answer("503 Unavailable", "Retry-After: 0"), answer("200 OK", "Content-Type: text/html"), answer("307 Moved", "Location: /sse"))
        for (refusal in refusals) {
            Server(refusal).use { server ->
                val end = assertFailsWith<EndedException> { open(server) }.ending
                assertEquals(refusal.split(' ')[1].toInt(), end.status)
                assertEquals(false, end.answered)
                assertEquals(1, server.requests.size)
            }
        }
    }

    @Test
    fun `the code of a refusal tells whether the server sent it`() = runBlocking {
        val codes = mapOf("blocked" to true, "not_an_upgrade" to false, "websocket_version" to false, "websocket_key" to false)
        for ((code, answered) in codes) {
            Server(answer("403 Forbidden", body = """{"error":{"code":"$code","message":"no"}}""")).use { server ->
                assertEquals(answered, assertFailsWith<EndedException> { open(server) }.ending.answered, code)
                assertEquals(answered, assertFailsWith<EndedException> { OkHttpTransport(null).open(server.url, null) }.ending.answered, code)
            }
        }
    }

    @Test
    fun `the end of a connection ends both requests`() = runBlocking {
        Server(answers = listOf("")).use { server ->
            val socket = open(server)
            val stream = server.streams.next()
            begin(socket)
            socket.send(call(1))
            repeat(2) { server.requests.next() }
            socket.close()
            assertFailsWith<EndedException> { socket.receive() }
            assertTrue(socket.over.isCompleted)
            withContext(Dispatchers.IO) {
                // The server notices it when it writes.
                assertTrue(runCatching { while (true) stream.getOutputStream().write(":\n".toByteArray()) }.isFailure)
            }
        }
    }

    @Test
    fun `a welcome without a key fails the attempt`() = runBlocking {
        Server().use { server ->
            val socket = open(server)
            assertFailsWith<EndedException> { socket.welcomed(Welcome(buildJsonObject { put("connectionId", "c") })) }
            socket.release()
        }
    }

    @Test
    fun `the last segment of the path is replaced`() {
        assertEquals("https://example.com/sse", eventsUrl("wss://example.com").toString())
        assertEquals("http://example.com/a/sse?b=%20c", eventsUrl("ws://example.com/a/ws?b=%20c").toString())
    }

    private companion object {
        const val STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

        fun answer(status: String, header: String = "X-None: 1", body: String = "") =
            "HTTP/1.1 $status\r\n$header\r\nContent-Length: ${body.length}\r\n\r\n$body"
    }
}
