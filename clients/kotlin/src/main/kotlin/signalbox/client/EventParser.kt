package signalbox.client

import okio.Buffer
import okio.ByteString.Companion.encodeUtf8

/** A server-sent event with data. */
internal class ServerEvent(val name: String, val data: String)

/** Reads events from the bytes of a stream, in pieces of any size. */
internal class EventParser {
    private val line = Buffer()

    /** Whether the last line ended with a carriage return, so that a line feed after it ends none. */
    private var afterReturn = false
    private var begun = false
    private var name = ""
    private var data: StringBuilder? = null

    /** Takes all bytes of [piece], and returns the events that end in it. */
    fun feed(piece: Buffer): List<ServerEvent> {
        val events = ArrayList<ServerEvent>()
        while (!piece.exhausted()) {
            if (afterReturn && piece[0] == LINE_FEED) piece.skip(1)
            afterReturn = false
            val end = piece.indexOfElement(LINE_ENDS)
            if (end < 0) {
                line.writeAll(piece)
                break
            }
            line.write(piece, end)
            afterReturn = piece.readByte() != LINE_FEED
            endLine(line.readUtf8())?.let { events += it }
        }
        return events
    }

    /** Returns the event that ends with this line. */
    private fun endLine(text: String): ServerEvent? {
        val line = if (begun) text else text.removePrefix(BYTE_ORDER_MARK)
        begun = true
        if (line.isEmpty()) return endEvent()
        val value = line.substringAfter(':', "").removePrefix(" ")
        when (line.substringBefore(':')) {
            "data" -> data = data?.append('\n')?.append(value) ?: StringBuilder(value)
            "event" -> name = value
        }
        return null
    }

    private fun endEvent(): ServerEvent? {
        val event = data?.let { ServerEvent(name, it.toString()) }
        name = ""
        data = null
        return event
    }

    private companion object {
        const val LINE_FEED = '\n'.code.toByte()
        const val BYTE_ORDER_MARK = "\uFEFF"
        val LINE_ENDS = "\r\n".encodeUtf8()
    }
}
