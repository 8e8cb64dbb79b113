/** The driver of clients/conformance/README.md for the Kotlin client. */
package signalbox.conformance

import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelChildren
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.job
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import kotlinx.serialization.json.put
import signalbox.client.Message
import signalbox.client.Options
import signalbox.client.Presence
import signalbox.client.Recovery
import signalbox.client.Room
import signalbox.client.Signalbox
import signalbox.client.SignalboxException
import signalbox.client.State
import signalbox.client.StateChange
import signalbox.client.TokenDeniedException
import signalbox.client.TransportKind

fun main(): Unit = runBlocking {
    val driver = Driver()
    coroutineScope {
        for (line in generateSequence(::readLine)) {
            driver.start(this, Json.parseToJsonElement(line).jsonObject)
        }
        driver.close()
        coroutineContext.job.cancelChildren()
    }
}

/** Has one client, and carries out the commands for it. */
private class Driver {
    private lateinit var client: Signalbox
    private val watched = HashSet<String>()

    /** Begins a command, and returns when it waits for its result. */
    fun start(scope: CoroutineScope, command: JsonObject) {
        // The input blocks this thread, so that the commands need others.
        scope.launch(Dispatchers.Default, CoroutineStart.UNDISPATCHED) {
            val number = command.getValue("n")
            try {
                val value = perform(this, command)
                write {
                    put("n", number)
                    put("ok", value)
                }
            } catch (error: SignalboxException) {
                write {
                    put("n", number)
                    put("error", fields { failure(error) })
                }
            }
        }
    }

    suspend fun close() {
        if (::client.isInitialized) client.close()
    }

    private suspend fun perform(scope: CoroutineScope, command: JsonObject): JsonElement {
        when (val name = command.getValue("do").jsonPrimitive.content) {
            "open" -> {
                open(command)
                connect(scope)
            }
            "connect" -> connect(scope)
            "close" -> client.close()
            "join" -> return join(command)
            "leave" -> client.leave(command.text("room").orEmpty())
            "send" -> return send(command)
            "request" -> return client.request(command.text("type").orEmpty(), command["payload"]) ?: JsonNull
            "history" -> return history(command)
            "presence" -> return fields { users(client.room(command.text("room").orEmpty()).presence) }
            "state" -> return state()
            else -> error("unknown command $name")
        }
        return JsonNull
    }

    /** Begins to connect; the application learns of the result as a change of the state. */
    private fun connect(scope: CoroutineScope) {
        scope.launch(start = CoroutineStart.UNDISPATCHED) { runCatching { client.connect() } }
    }

    private fun open(command: JsonObject) {
        val made = Signalbox(command.text("url").orEmpty()) {
            userId = command.text("userId")
            token = command.text("token")
            command["tokens"]?.let {
                val next = tokens(it.jsonArray)
                token { next(null) }
            }
            fallback = false
            command["options"]?.let { set(it.jsonObject) }
        }
        made.on("*") { write { message(it) } }
        made.onState { write { change(it) } }
        made.onError {
            write {
                put("event", "error")
                put("code", it.code)
            }
        }
        made.onRecovery { write { recovery(it) } }
        client = made
    }

    private suspend fun join(command: JsonObject): JsonElement {
        val room = client.room(command.text("room").orEmpty())
        if (watched.add(room.name)) watch(room)
        room.join(
            last = command["last"]?.jsonPrimitive?.int ?: 0,
            presence = command["presence"]?.jsonPrimitive?.boolean ?: false,
            token = command.text("token"),
            fetchToken = command["tokens"]?.let { tokens(it.jsonArray) },
        )
        return fields { put("recovered", room.recovered) }
    }

    private fun watch(room: Room) {
        room.onRecovery {
            write {
                recovery(it)
                put("room", room.name)
            }
        }
        room.onPresence {
            write {
                put("event", "presence")
                put("room", room.name)
                users(it)
            }
        }
        room.onLeft {
            write {
                put("event", "left")
                put("room", room.name)
                put("code", it.code)
            }
        }
    }

    private suspend fun send(command: JsonObject): JsonElement {
        val answer = client.send(
            command.text("type").orEmpty(),
            command["payload"],
            to = command.text("to"),
            room = command.text("room"),
            once = command["once"]?.jsonPrimitive?.boolean ?: false,
        )
        return fields {
            put("status", answer.status)
            put("duplicate", answer.duplicate)
            answer.data?.let { put("data", it) }
        }
    }

    private suspend fun history(command: JsonObject): JsonElement {
        val before = command["before"]?.jsonPrimitive?.long
        val page = client.history(command.text("room").orEmpty(), before, command["limit"]?.jsonPrimitive?.int)
        return fields {
            put("messages", JsonArray(page.messages.map { JsonPrimitive(it.offset) }))
            put("hasOlder", page.hasOlder)
        }
    }

    private fun state(): JsonElement = fields {
        put("state", client.state.name.lowercase())
        put("rooms", JsonArray(client.joinedRooms.map(::JsonPrimitive)))
        put("queued", client.queued)
    }
}

private fun Options.set(options: JsonObject) {
    for ((name, value) in options) {
        val wanted = value.jsonPrimitive
        when (name) {
            "connectTimeoutMs" -> connectTimeout = wanted.milliseconds
            "backoffMinMs" -> backoffMin = wanted.milliseconds
            "backoffMaxMs" -> backoffMax = wanted.milliseconds
            "stableAfterMs" -> stableAfter = wanted.milliseconds
            "answerTimeoutMs" -> answerTimeout = wanted.milliseconds
            "heartbeatMs" -> heartbeatInterval = wanted.milliseconds
            "heartbeatTimeoutMs" -> heartbeatTimeout = wanted.milliseconds
            "offline" -> failOffline = wanted.content == "error"
            "queueMax" -> queueMax = wanted.int
            "queueBytesMax" -> queueBytesMax = wanted.int
            "fallback" -> fallback = wanted.boolean
            "webSocketAgainMs" -> webSocketAgain = wanted.milliseconds
            else -> error("unknown option $name")
        }
    }
}

/** Gives the tokens one after another, of a room if it gets one; null: it fails. */
private fun tokens(tokens: JsonArray): suspend (room: String?) -> String {
    val left = ArrayDeque(tokens)
    return { room ->
        write {
            put("event", "token")
            given("room", room)
        }
        val token = if (left.size > 1) left.removeFirst() else left.first()
        when (val text = token.jsonPrimitive.contentOrNull) {
            null -> error("no token now")
            "final" -> throw TokenDeniedException("no token at all")
            else -> text
        }
    }
}

private fun JsonObjectBuilder.failure(error: SignalboxException) {
    put("code", error.code)
    put("retryable", error.retryable)
    given("plugin", error.plugin)
}

private fun JsonObjectBuilder.message(message: Message) {
    put("event", "message")
    put("type", message.type)
    put("payload", message.payload)
    put("sender", message.sender.orEmpty())
    given("room", message.room)
    message.offset?.let { put("offset", it) }
}

private fun JsonObjectBuilder.change(change: StateChange) {
    put("event", "state")
    put("state", change.state.name.lowercase())
    change.code?.let { put("code", it) }
    change.status?.let { put("status", it) }
    given("reason", change.reason)
    if (change.transport == TransportKind.SSE) put("transport", "sse")
    if (change.state == State.DISCONNECTED) put("retryInMs", change.retryIn?.inWholeMilliseconds)
}

private fun JsonObjectBuilder.recovery(recovery: Recovery) {
    put("event", "recovered")
    put("recovered", recovery.recovered)
    given("reason", recovery.reason)
}

private fun JsonObjectBuilder.users(users: Presence) {
    put("total", users.total)
    put("members", users.members?.let { JsonArray(it.keys.sorted().map(::JsonPrimitive)) } ?: JsonNull)
}

private fun JsonObjectBuilder.given(name: String, value: String?) {
    if (!value.isNullOrEmpty()) put(name, value)
}

private fun JsonObject.text(name: String): String? = this[name]?.jsonPrimitive?.contentOrNull

private val JsonPrimitive.milliseconds: Duration get() = double.milliseconds

private fun fields(build: JsonObjectBuilder.() -> Unit): JsonObject = buildJsonObject(build)

private fun write(build: JsonObjectBuilder.() -> Unit) {
    // A line at a time, whichever thread writes it.
    synchronized(System.out) { println(buildJsonObject(build)) }
}
