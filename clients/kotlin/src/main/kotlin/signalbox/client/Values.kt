package signalbox.client

import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.awaitClose
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.callbackFlow
import kotlin.coroutines.cancellation.CancellationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.decodeFromJsonElement
import kotlinx.serialization.json.encodeToJsonElement

/** Sends a value that kotlinx.serialization can encode, see [Signalbox.send]. */
public suspend inline fun <reified T : Any> Signalbox.send(
    type: String,
    payload: T,
    to: String? = null,
    room: String? = null,
    once: Boolean = false,
): Answer = send(type, Json.encodeToJsonElement(payload), to, room, once)

/** Sends a value that kotlinx.serialization can encode, see [Room.send]. */
public suspend inline fun <reified T : Any> Room.send(type: String, payload: T, once: Boolean = false): Answer =
    send(type, Json.encodeToJsonElement(payload), once)

/**
 * The payload as a value that kotlinx.serialization can decode.
 *
 * @throws kotlinx.serialization.SerializationException if it is none.
 */
public inline fun <reified T> Message.payloadAs(): T = Json.decodeFromJsonElement(payload)

/** The messages of this type; `*` stands for every type. A collector that suspends delays all callbacks. It never completes. */
public fun Signalbox.messages(type: String = EVERY_TYPE): Flow<Message> = flowOf { on(type, it) }

/** The changes of the state from now on. It never completes. */
public fun Signalbox.stateChanges(): Flow<StateChange> = flowOf(::onState)

/** The errors that no call gets. It never completes. */
public fun Signalbox.errors(): Flow<SignalboxException> = flowOf(::onError)

/** The messages of this type to the room; `*` stands for every type. A collector that suspends delays all callbacks. It never completes. */
public fun Room.messages(type: String = EVERY_TYPE): Flow<Message> = flowOf { on(type, it) }

/** The users of the room after each change. It never completes. */
public fun Room.presenceChanges(): Flow<Presence> = flowOf(::onPresence)

private fun <T> flowOf(add: (suspend (T) -> Unit) -> Subscription): Flow<T> = callbackFlow {
    val subscription = add { event ->
        try {
            send(event)
        } catch (_: CancellationException) {
            // Nobody collects any more.
        }
    }
    awaitClose { subscription.end() }
}.buffer(Channel.RENDEZVOUS)
