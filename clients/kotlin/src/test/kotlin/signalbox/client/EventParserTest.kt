package signalbox.client

import kotlin.test.Test
import kotlin.test.assertEquals
import okio.Buffer

class EventParserTest {
    private fun parse(vararg pieces: String): List<String> {
        val parser = EventParser()
        return pieces.flatMap { parser.feed(Buffer().writeUtf8(it)) }.map { "${it.name}=${it.data}" }
    }

    @Test
    fun `all line ends end lines, also between pieces`() {
        assertEquals(listOf("=1", "=2", "=3"), parse("data: 1\n\n", "data: 2\r\n\r", "\ndata: 3\r\r"))
    }

    @Test
    fun `events in single bytes are the same`() {
        val text = "\uFEFFevent: close\r\ndata:a\r\ndata: b\r\n\r\n: comment\n\nid: 7\nretry: 1\n\ndata\n\n"
        val parser = EventParser()
        val events = text.encodeToByteArray().flatMap { parser.feed(Buffer().writeByte(it.toInt())) }
        assertEquals(listOf("close" to "a\nb", "" to ""), events.map { it.name to it.data })
    }

    @Test
    fun `an event without data, or without its end, is none`() {
        assertEquals(emptyList(), parse("event: message\n\n", "data: 1\n"))
    }
}
