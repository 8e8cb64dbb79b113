package signalbox.client

import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket as TcpSocket
import java.security.MessageDigest
import java.util.Base64
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.runBlocking
import okhttp3.Dns
import okhttp3.OkHttpClient

class OkHttpTransportTest {
    /** A server that answers each upgrade with the same text; null: it says nothing. */
    private class Server(private val answer: ((key: String) -> String)?) : AutoCloseable {
        private val listener = ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"))
        val requests = LinkedBlockingQueue<List<String>>()
        val sockets = LinkedBlockingQueue<TcpSocket>()
        val url = "ws://127.0.0.1:${listener.localPort}/ws"
        val port get() = listener.localPort

        init {
            thread(isDaemon = true) {
                while (!listener.isClosed) {
                    val socket = runCatching { listener.accept() }.getOrNull() ?: return@thread
                    serve(socket)
                }
            }
        }

        private fun serve(socket: TcpSocket) {
            val lines = socket.getInputStream().bufferedReader()
            val request = generateSequence(lines::readLine).takeWhile { it.isNotEmpty() }.toList()
            val key = request.firstOrNull { it.startsWith("Sec-WebSocket-Key: ") }?.substringAfter(": ").orEmpty()
            answer?.let { socket.getOutputStream().write(it(key).toByteArray()) }
            requests += request
            sockets += socket
        }

        override fun close() {
            listener.close()
            sockets.forEach(TcpSocket::close)
        }
    }

    private fun accepted(key: String): String {
        val hash = MessageDigest.getInstance("SHA-1").digest("${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".toByteArray())
        val accept = Base64.getEncoder().encodeToString(hash)
        return "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
            "Sec-WebSocket-Protocol: signalbox.v1\r\nSec-WebSocket-Accept: $accept\r\n\r\n"
    }

    @Test
    fun `an upgrade has the token and the subprotocol`() = runBlocking {
        Server(::accepted).use { server ->
            val socket = OkHttpTransport(null).open(server.url, "secret")
            assertEquals(SUBPROTOCOL, socket.subprotocol)
            val request = server.requests.take()
            assertTrue("Authorization: Bearer secret" in request)
            assertTrue("Sec-WebSocket-Protocol: signalbox.v1" in request)
            socket.abort()
            assertFailsWith<EndedException> { socket.receive() }
            socket.release()
            assertEquals(-1, runCatching { server.sockets.take().getInputStream().read() }.getOrDefault(-1))
        }
    }

    @Test
    fun `a refused upgrade is asked for once also if it may be repeated at once`() = runBlocking {
        for (status in listOf("503 Unavailable", "408 Timeout")) {
            Server { "HTTP/1.1 $status\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n" }.use { server ->
                val refused = assertFailsWith<EndedException> { OkHttpTransport(null).open(server.url, null) }
                assertEquals(status.substringBefore(' ').toInt(), refused.ending.status)
                assertNotNull(server.requests.take())
                assertEquals(null, server.requests.poll(0, TimeUnit.SECONDS))
            }
        }
    }

    @Test
    fun `the reason of a refusal is that of the server`() = runBlocking {
        val body = """{"error":{"code":"blocked","message":"blocked for now"}}"""
        Server { "HTTP/1.1 403 Forbidden\r\nRetry-After: 7\r\nContent-Length: ${body.length}\r\n\r\n$body" }.use { server ->
            val refused = assertFailsWith<EndedException> { OkHttpTransport(null).open(server.url, null) }
            assertEquals("blocked for now", refused.ending.reason)
            assertEquals(7.seconds, refused.ending.retryAfter)
        }
    }

    @Test
    fun `an attempt that is cancelled leaves no socket`() = runBlocking {
        Server(null).use { server ->
            val attempt = async { OkHttpTransport(null).open(server.url, null) }
            val requests = async(Dispatchers.IO) { server.sockets.take() }
            val socket = requests.await()
            attempt.cancelAndJoin()
            assertEquals(-1, runCatching { socket.getInputStream().read() }.getOrDefault(-1))
        }
    }

    @Test
    fun `the other addresses of a name are tried`() = runBlocking {
        Server(::accepted).use { server ->
            val addresses = listOf("127.0.0.2", "127.0.0.1").map(InetAddress::getByName)
            val client = OkHttpClient.Builder().dns(object : Dns {
                override fun lookup(hostname: String) = addresses
            }).build()
            val socket = OkHttpTransport(client).open("ws://signalbox.test:${server.port}/ws", null)
            socket.release()
        }
    }

    @Test
    fun `threads do not outlive the connections for long`() = runBlocking {
        Server(::accepted).use { server ->
            val transport = OkHttpTransport(null)
            repeat(20) { transport.open(server.url, null).release() }
            val own = { Thread.getAllStackTraces().keys.filter { it.name == "signalbox" } }
            own().forEach { assertTrue(it.isDaemon) }
            own().forEach { it.join(20_000) }
            assertEquals(emptyList(), own())
        }
    }
}
