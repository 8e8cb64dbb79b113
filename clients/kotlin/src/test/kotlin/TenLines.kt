import kotlinx.coroutines.delay
import kotlinx.coroutines.runBlocking
import signalbox.client.*

fun main() = runBlocking {
    Signalbox("ws://127.0.0.1:8080/ws") { userId = "ann" }.use { client ->
        val room = client.join("chat:7", last = 20, presence = true)
        room.on("chat_message") { println("${it.sender}: ${it.payload}") }
        println(room.send("chat_message", "hello").status)
        delay(60_000)
    }
}
