/* Signalbox plugins in C: the types of signalbox:plugin@1.0.0, the functions of the server, and macros that export the
 * functions of a plugin. Include this header in only one source file of a plugin.
 *
 * Memory: everything that is received from the server, and everything that sb_alloc and sb_text return, is freed after
 * the server has read the result of the call. The plugin frees nothing, and must not keep pointers for later calls. */
#ifndef SIGNALBOX_H
#define SIGNALBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- Values. Strings are UTF-8 and have no terminating zero. ---- */

typedef struct { const char *at; size_t length; } sb_string;

typedef struct { const uint8_t *at; size_t length; } sb_bytes;

/* SB("text") makes an sb_string from a string literal. */
#define SB(literal) ((sb_string){(literal), sizeof(literal) - 1})

typedef enum { SB_NOBODY = -1, SB_SENDER, SB_USER, SB_ROOM, SB_EVERYONE } sb_to;

/* The receivers of a message. `name` is the ID of the user or the name of the room. */
typedef struct { sb_to to; sb_string name; } sb_destination;

/* An incoming message. `payload` is JSON text, `timestamp` is in milliseconds since 1970. */
typedef struct {
    sb_string id, type, sender;
    sb_destination destination;
    sb_string payload;
    uint64_t timestamp;
} sb_message;

/* A message that a plugin creates. */
typedef struct { sb_string type; sb_destination destination; sb_string payload; } sb_draft;

/* A refusal: `code` is for programs (1 to 64 of a-z 0-9 _ . -), `reason` for people. An empty code means no refusal. */
typedef struct { sb_string code, reason; } sb_rejection;

/* The result of a transformation. `rejection` is used if `is` is SB_REFUSED, `draft` if it is SB_CHANGED. */
typedef struct {
    enum { SB_UNCHANGED, SB_CHANGED, SB_DROPPED, SB_REFUSED } is;
    sb_draft draft;
    sb_rejection rejection;
} sb_outcome;

typedef struct { uint16_t code; sb_string reason; } sb_disconnection;

/* The memory of an instance. The plugin's author numbers the formats of `data`. If the memory cannot be saved, `error`
 * is not empty. */
typedef struct { uint32_t format; sb_bytes data; sb_string error; } sb_snapshot;

/* Something that the server should do after a call. */
typedef struct {
    enum { SB_DELIVER, SB_SEND, SB_ANNOUNCE, SB_JOIN, SB_LEAVE, SB_DISCONNECT } is;
    sb_draft draft;                 /* SB_SEND, SB_ANNOUNCE */
    sb_string room;                 /* SB_JOIN, SB_LEAVE */
    sb_disconnection disconnection; /* SB_DISCONNECT */
} sb_action;

/* A list of actions, or a refusal if `rejection` has a code. */
typedef struct { const sb_action *at; size_t length; sb_rejection rejection; } sb_actions;

/* The answer to a request: `data` is JSON text. The actions are carried out before it is sent. A refusal if `rejection`
 * has a code. */
typedef struct { sb_string data; const sb_action *at; size_t length; sb_rejection rejection; } sb_reply;

/* A connection of a user. `claims` is JSON text, `connected_at` is in milliseconds since 1970. */
typedef struct { sb_string connection, user, claims, address; uint64_t connected_at; } sb_client;

#define SB_OK ((sb_rejection){{0, 0}, {0, 0}})
#define SB_REJECT(c, r) ((sb_rejection){SB(c), SB(r)})

static inline bool sb_equal(sb_string a, sb_string b) {
    return a.length == b.length && memcmp(a.at, b.at, a.length) == 0;
}

/* ---- Memory for one call. ---- */

static struct sb_block { struct sb_block *before; } *sb_blocks;
static _Alignas(8) uint8_t sb_memory[32768];
static size_t sb_used;

/* Allocates memory that is freed after the server has read the result of this call. Fails the call if memory runs
 * out. */
static inline void *sb_alloc(size_t size) {
    size_t rounded = (size + 7) & ~(size_t)7;
    if (rounded >= size && rounded <= sizeof sb_memory - sb_used) {
        void *at = sb_memory + sb_used;
        sb_used += rounded;
        return at;
    }
    /* The pointer to the previous block takes 8 bytes, so that the memory after it stays aligned. */
    struct sb_block *block = size <= SIZE_MAX - 8 ? malloc(size + 8) : NULL;
    if (!block) __builtin_trap();
    block->before = sb_blocks;
    sb_blocks = block;
    return (uint8_t *)block + 8;
}

static inline void sb_free_all(void) {
    while (sb_blocks) {
        struct sb_block *before = sb_blocks->before;
        free(sb_blocks);
        sb_blocks = before;
    }
    sb_used = 0;
}

/* Concatenates strings: sb_text(SB("a"), b, SB("c")). */
static inline sb_string sb_join_texts(const sb_string *parts, size_t count) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) length += parts[i].length;
    char *at = sb_alloc(length), *to = at;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].length) memcpy(to, parts[i].at, parts[i].length);
        to += parts[i].length;
    }
    return (sb_string){at, length};
}
#define sb_text(...) \
    sb_join_texts((const sb_string[]){__VA_ARGS__}, sizeof((const sb_string[]){__VA_ARGS__}) / sizeof(sb_string))

/* Encodes a string as JSON, with quotes. */
static inline sb_string sb_quote(sb_string text) {
    static const char hex[] = "0123456789abcdef";
    char *at = sb_alloc(text.length * 6 + 2), *to = at;
    *to++ = '"';
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];
        if (c == '"' || c == '\\') {
            *to++ = '\\';
            *to++ = (char)c;
        } else if (c < 0x20) {
            memcpy(to, "\\u00", 4);
            to[4] = hex[c >> 4];
            to[5] = hex[c & 15];
            to += 6;
        } else {
            *to++ = (char)c;
        }
    }
    *to++ = '"';
    return (sb_string){at, (size_t)(to - at)};
}

__attribute__((export_name("cabi_realloc"))) void *sb_realloc(void *old, size_t old_size, size_t align, size_t size) {
    if (size == 0) return (void *)align;
    void *at = sb_alloc(size);
    if (old_size) memcpy(at, old, old_size < size ? old_size : size);
    return at;
}

/* ---- Functions of the server. ---- */

#define SB_IMPORT(interface, function) \
    __attribute__((import_module("signalbox:plugin/" interface "@1.0.0"), import_name(function)))

SB_IMPORT("log", "write") extern void sb_import_log(uint32_t level, const char *at, size_t length);
SB_IMPORT("context", "current-client") extern void sb_import_client(void *area);
SB_IMPORT("context", "node") extern void sb_import_node(void *area);
SB_IMPORT("context", "now") extern uint64_t sb_now(void);        /* milliseconds since 1970 */
SB_IMPORT("context", "random") extern uint32_t sb_random(void); /* uniform and unpredictable */
SB_IMPORT("store", "get") extern void sb_import_get(const char *key, size_t length, void *area);
SB_IMPORT("store", "set")
extern void sb_import_set(const char *key, size_t length, const uint8_t *value, size_t value_length, uint32_t has_ttl,
                          uint32_t ttl, void *area);
SB_IMPORT("store", "remove") extern void sb_import_remove(const char *key, size_t length, void *area);
SB_IMPORT("store", "increment")
extern void sb_import_increment(const char *key, size_t length, int32_t by, uint32_t has_ttl, uint32_t ttl, void *area);
SB_IMPORT("store", "compare-and-swap")
extern void sb_import_swap(const char *key, size_t length, uint32_t has_expected, const uint8_t *expected,
                           size_t expected_length, const uint8_t *value, size_t value_length, uint32_t has_ttl, uint32_t ttl,
                           void *area);
SB_IMPORT("metrics", "count") extern void sb_import_count(const char *name, size_t length, uint32_t by);
SB_IMPORT("metrics", "observe") extern void sb_import_observe(const char *name, size_t length, double value);

typedef enum { SB_DEBUG, SB_INFO, SB_WARN, SB_ERROR } sb_level;

static inline void sb_log(sb_level level, sb_string line) { sb_import_log(level, line.at, line.length); }

/* Why an operation of the store failed; SB_STORED if it succeeded. */
typedef enum { SB_STORED = -1, SB_TOO_LARGE, SB_NOT_A_NUMBER, SB_TOO_MANY_CALLS, SB_UNAVAILABLE } sb_store_error;

/* Gets the connection that the call is about; false if there is none. */
static inline bool sb_current_client(sb_client *client) {
    struct { uint8_t is_some; _Alignas(8) sb_client client; } area;
    sb_import_client(&area);
    if (area.is_some) *client = area.client;
    return area.is_some;
}

static inline sb_string sb_node(void) {
    sb_string node;
    sb_import_node(&node);
    return node;
}

/* Reads a value. `at` is a null pointer if the key does not exist. */
static inline sb_store_error sb_get(sb_string key, sb_bytes *value) {
    struct { uint8_t is_error; union { uint8_t error; struct { uint8_t is_some; sb_bytes value; } option; } is; } area;
    sb_import_get(key.at, key.length, &area);
    *value = (sb_bytes){0, 0};
    if (area.is_error) return (sb_store_error)area.is.error;
    if (area.is.option.is_some) *value = area.is.option.value;
    return SB_STORED;
}

/* Writes a value, which expires after `ttl` seconds; 0 means never. */
static inline sb_store_error sb_set(sb_string key, sb_bytes value, uint32_t ttl) {
    uint8_t area[2];
    sb_import_set(key.at, key.length, value.at, value.length, ttl != 0, ttl, area);
    return area[0] ? (sb_store_error)area[1] : SB_STORED;
}

static inline sb_store_error sb_remove(sb_string key) {
    uint8_t area[2];
    sb_import_remove(key.at, key.length, area);
    return area[0] ? (sb_store_error)area[1] : SB_STORED;
}

/* Adds `by` and stores the result in `sum`. A new value starts at 0 and expires after `ttl` seconds; 0 means never. An
 * existing value keeps its expiry. */
static inline sb_store_error sb_increment(sb_string key, int32_t by, uint32_t ttl, int64_t *sum) {
    struct { uint8_t is_error; union { uint8_t error; int64_t sum; } is; } area;
    sb_import_increment(key.at, key.length, by, ttl != 0, ttl, &area);
    if (area.is_error) return (sb_store_error)area.is.error;
    *sum = area.is.sum;
    return SB_STORED;
}

/* Sets the value if it is still `expected`; a null pointer means that the key must not exist. `swapped` is false if
 * another call changed the value first. */
static inline sb_store_error sb_compare_and_swap(sb_string key, const sb_bytes *expected, sb_bytes value, uint32_t ttl,
                                                 bool *swapped) {
    uint8_t area[2];
    sb_import_swap(key.at, key.length, expected != NULL, expected ? expected->at : NULL, expected ? expected->length : 0,
                   value.at, value.length, ttl != 0, ttl, area);
    if (area[0]) return (sb_store_error)area[1];
    *swapped = area[1];
    return SB_STORED;
}

static inline void sb_count(sb_string name, uint32_t by) { sb_import_count(name.at, name.length, by); }
static inline void sb_observe(sb_string name, double value) { sb_import_observe(name.at, name.length, value); }

/* ---- Memory layout of results. ---- */

typedef struct { uint8_t is_some; struct { uint8_t to; sb_string name; } destination; } sb_abi_destination;
typedef struct { sb_string type; sb_abi_destination destination; sb_string payload; } sb_abi_draft;
typedef struct { uint8_t is_error; sb_rejection rejection; } sb_abi_checked;
typedef struct { uint8_t is_error; union { struct { uint8_t is; sb_abi_draft draft; } outcome; sb_rejection rejection; } is; } sb_abi_outcome;
typedef struct { uint8_t is; union { sb_abi_draft draft; sb_string room; sb_disconnection disconnection; } of; } sb_abi_action;
typedef struct { const sb_abi_action *at; size_t length; } sb_abi_list;
typedef struct { uint8_t is_error; union { sb_abi_list list; sb_rejection rejection; } is; } sb_abi_actions;
typedef struct { uint8_t is_error; union { struct { sb_string data; sb_abi_list list; } reply; sb_rejection rejection; } is; } sb_abi_reply;
typedef struct { const sb_string *at; size_t length; } sb_abi_texts;
typedef struct { uint8_t is_error; sb_string error; } sb_abi_started;
typedef struct { uint8_t is_error; union { struct { uint32_t format; sb_bytes data; } snapshot; sb_string error; } is; } sb_abi_saved;

_Static_assert(sizeof(sb_abi_draft) == 32 && sizeof(sb_abi_outcome) == 40 && sizeof(sb_abi_action) == 36,
               "this is for wasm32");

static inline sb_abi_draft sb_lay_draft(sb_draft draft) {
    sb_abi_draft laid = {draft.type, {draft.destination.to != SB_NOBODY, {0, {0, 0}}}, draft.payload};
    if (laid.destination.is_some) {
        laid.destination.destination.to = (uint8_t)draft.destination.to;
        laid.destination.destination.name = draft.destination.name;
    }
    return laid;
}

static inline void *sb_lay_checked(sb_rejection rejection) {
    sb_abi_checked *area = sb_alloc(sizeof *area);
    *area = (sb_abi_checked){rejection.code.length != 0, rejection};
    return area;
}

static inline void *sb_lay_outcome(sb_outcome outcome) {
    sb_abi_outcome *area = sb_alloc(sizeof *area);
    area->is_error = outcome.is == SB_REFUSED;
    if (area->is_error) {
        area->is.rejection = outcome.rejection;
        return area;
    }
    area->is.outcome.is = (uint8_t)outcome.is;
    if (outcome.is == SB_CHANGED) area->is.outcome.draft = sb_lay_draft(outcome.draft);
    return area;
}

static inline sb_abi_list sb_lay_list(sb_actions actions) {
    sb_abi_action *list = sb_alloc(sizeof *list * actions.length);
    for (size_t i = 0; i < actions.length; i++) {
        const sb_action *action = &actions.at[i];
        list[i].is = (uint8_t)action->is;
        switch (action->is) {
        case SB_DELIVER: break;
        case SB_SEND:
        case SB_ANNOUNCE: list[i].of.draft = sb_lay_draft(action->draft); break;
        case SB_JOIN:
        case SB_LEAVE: list[i].of.room = action->room; break;
        case SB_DISCONNECT: list[i].of.disconnection = action->disconnection; break;
        }
    }
    return (sb_abi_list){list, actions.length};
}

static inline void *sb_lay_actions(sb_actions actions) {
    sb_abi_actions *area = sb_alloc(sizeof *area);
    area->is_error = actions.rejection.code.length != 0;
    if (area->is_error) area->is.rejection = actions.rejection;
    else area->is.list = sb_lay_list(actions);
    return area;
}

static inline void *sb_lay_reply(sb_reply reply) {
    sb_abi_reply *area = sb_alloc(sizeof *area);
    area->is_error = reply.rejection.code.length != 0;
    if (area->is_error) {
        area->is.rejection = reply.rejection;
        return area;
    }
    area->is.reply.data = reply.data;
    area->is.reply.list = sb_lay_list((sb_actions){reply.at, reply.length, SB_OK});
    return area;
}

static inline void *sb_lay_only_actions(sb_actions actions) {
    sb_abi_list *list = sb_alloc(sizeof *list);
    *list = sb_lay_list(actions);
    return list;
}

static inline void *sb_lay_texts(const sb_string *at, size_t length) {
    sb_abi_texts *list = sb_alloc(sizeof *list);
    *list = (sb_abi_texts){at, length};
    return list;
}

static inline void *sb_lay_started(sb_string error) {
    sb_abi_started *area = sb_alloc(sizeof *area);
    *area = (sb_abi_started){error.length != 0, error};
    return area;
}

static inline void *sb_lay_saved(sb_snapshot snapshot) {
    sb_abi_saved *area = sb_alloc(sizeof *area);
    area->is_error = snapshot.error.length != 0;
    if (area->is_error) {
        area->is.error = snapshot.error;
        return area;
    }
    area->is.snapshot.format = snapshot.format;
    area->is.snapshot.data = snapshot.data;
    return area;
}

/* ---- Exports of a plugin. Use each macro at most once, at file scope. ---- */

#define SB_EXPORT(interface, function) __attribute__((export_name("signalbox:plugin/" interface "@1.0.0#" function)))
/* Called by the server after it has read the result. */
#define SB_AFTER(interface, function, name) \
    __attribute__((export_name("cabi_post_signalbox:plugin/" interface "@1.0.0#" function))) \
    void sb_after_##name(void *area) { (void)area; sb_free_all(); }

/* The flattened fields of a message and of a client. */
#define SB_MESSAGE_PARAMETERS \
    const char *id, size_t id_length, const char *type, size_t type_length, const char *sender, size_t sender_length, \
        uint32_t has_to, uint32_t to, const char *name, size_t name_length, const char *payload, size_t payload_length, \
        uint64_t timestamp
#define SB_MESSAGE \
    ((sb_message){{id, id_length}, {type, type_length}, {sender, sender_length}, \
                  {has_to ? (sb_to)to : SB_NOBODY, {name, name_length}}, {payload, payload_length}, timestamp})
#define SB_CLIENT_PARAMETERS \
    const char *connection, size_t connection_length, const char *user, size_t user_length, const char *claims, \
        size_t claims_length, const char *address, size_t address_length, uint64_t connected_at
#define SB_CLIENT \
    ((sb_client){{connection, connection_length}, {user, user_length}, {claims, claims_length}, \
                 {address, address_length}, connected_at})

/* sb_rejection validate(sb_message) */
#define SIGNALBOX_VALIDATION(validate) \
    SB_EXPORT("validation", "validate") void *sb_export_validate(SB_MESSAGE_PARAMETERS) { \
        return sb_lay_checked(validate(SB_MESSAGE)); \
    } \
    SB_AFTER("validation", "validate", validate)

/* sb_outcome transform(sb_message) */
#define SIGNALBOX_TRANSFORMATION(transform) \
    SB_EXPORT("transformation", "transform") void *sb_export_transform(SB_MESSAGE_PARAMETERS) { \
        return sb_lay_outcome(transform(SB_MESSAGE)); \
    } \
    SB_AFTER("transformation", "transform", transform)

/* sb_outcome screen(sb_message): returns the refusal of `validate` or, if that accepts the message, the result of
 * `transform`. Export those two as well. */
#define SIGNALBOX_SCREENING(screen) \
    SB_EXPORT("screening", "screen") void *sb_export_screen(SB_MESSAGE_PARAMETERS) { \
        return sb_lay_outcome(screen(SB_MESSAGE)); \
    } \
    SB_AFTER("screening", "screen", screen)

/* sb_actions handle(sb_message), and the event types that it handles: SIGNALBOX_EVENTS(handle, SB("a"), SB("b.*")) */
#define SIGNALBOX_EVENTS(handle, ...) \
    SB_EXPORT("events", "event-types") void *sb_export_event_types(void) { \
        static const sb_string types[] = {__VA_ARGS__}; \
        return sb_lay_texts(types, sizeof types / sizeof *types); \
    } \
    SB_AFTER("events", "event-types", event_types) \
    SB_EXPORT("events", "handle") void *sb_export_handle(SB_MESSAGE_PARAMETERS) { \
        return sb_lay_actions(handle(SB_MESSAGE)); \
    } \
    SB_AFTER("events", "handle", handle)

/* sb_reply respond(sb_message), and the types of the requests that it answers:
 * SIGNALBOX_REQUESTS(respond, SB("a"), SB("b.*")) */
#define SIGNALBOX_REQUESTS(respond, ...) \
    SB_EXPORT("requests", "request-types") void *sb_export_request_types(void) { \
        static const sb_string types[] = {__VA_ARGS__}; \
        return sb_lay_texts(types, sizeof types / sizeof *types); \
    } \
    SB_AFTER("requests", "request-types", request_types) \
    SB_EXPORT("requests", "respond") void *sb_export_respond(SB_MESSAGE_PARAMETERS) { \
        return sb_lay_reply(respond(SB_MESSAGE)); \
    } \
    SB_AFTER("requests", "respond", respond)

/* sb_actions connected(sb_client), and sb_actions disconnected(sb_client, sb_disconnection), which cannot refuse. */
#define SIGNALBOX_CONNECTIONS(connected, disconnected) \
    SB_EXPORT("connections", "connected") void *sb_export_connected(SB_CLIENT_PARAMETERS) { \
        return sb_lay_actions(connected(SB_CLIENT)); \
    } \
    SB_AFTER("connections", "connected", connected) \
    SB_EXPORT("connections", "disconnected") \
    void *sb_export_disconnected(SB_CLIENT_PARAMETERS, uint32_t code, const char *reason, size_t reason_length) { \
        return sb_lay_only_actions(disconnected(SB_CLIENT, (sb_disconnection){(uint16_t)code, {reason, reason_length}})); \
    } \
    SB_AFTER("connections", "disconnected", disconnected)

/* sb_rejection authorize(sb_client, sb_string room) */
#define SIGNALBOX_ROOMS(authorize) \
    SB_EXPORT("rooms", "authorize-join") \
    void *sb_export_authorize(SB_CLIENT_PARAMETERS, const char *room, size_t room_length) { \
        return sb_lay_checked(authorize(SB_CLIENT, (sb_string){room, room_length})); \
    } \
    SB_AFTER("rooms", "authorize-join", authorize)

/* sb_actions joined(sb_client, sb_string room, uint32_t connections) and sb_actions left(...) with the same parameters,
 * which cannot refuse. `connections` is the number of connections of the user on this node that are members of the room
 * after the change. */
#define SIGNALBOX_MEMBERSHIP(joined, left) \
    SB_EXPORT("membership", "joined") \
    void *sb_export_joined(SB_CLIENT_PARAMETERS, const char *room, size_t room_length, uint32_t connections) { \
        return sb_lay_only_actions(joined(SB_CLIENT, (sb_string){room, room_length}, connections)); \
    } \
    SB_AFTER("membership", "joined", joined) \
    SB_EXPORT("membership", "left") \
    void *sb_export_left(SB_CLIENT_PARAMETERS, const char *room, size_t room_length, uint32_t connections) { \
        return sb_lay_only_actions(left(SB_CLIENT, (sb_string){room, room_length}, connections)); \
    } \
    SB_AFTER("membership", "left", left)

/* sb_string init(sb_string config) and sb_string self_test(void): an empty string means success, any other is the
 * error. `init` must copy the parts of `config` that it keeps. */
#define SIGNALBOX_LIFECYCLE(init, self_test) \
    SB_EXPORT("lifecycle", "init") void *sb_export_init(const char *config, size_t length) { \
        return sb_lay_started(init((sb_string){config, length})); \
    } \
    SB_AFTER("lifecycle", "init", init) \
    SB_EXPORT("lifecycle", "self-test") void *sb_export_self_test(void) { return sb_lay_started(self_test()); } \
    SB_AFTER("lifecycle", "self-test", self_test)

/* For instances = "single". sb_snapshot save(void) is called on the old version while no other call is in progress.
 * sb_string restore(sb_snapshot) is the new version's first call after `init`: an empty string means success, any other
 * leaves the old version live. `restore` must copy the data that it keeps. */
#define SIGNALBOX_HANDOVER(save, restore) \
    SB_EXPORT("handover", "save") void *sb_export_save(void) { return sb_lay_saved(save()); } \
    SB_AFTER("handover", "save", save) \
    SB_EXPORT("handover", "restore") void *sb_export_restore(uint32_t format, const uint8_t *data, size_t length) { \
        return sb_lay_started(restore((sb_snapshot){format, {data, length}, {0, 0}})); \
    } \
    SB_AFTER("handover", "restore", restore)

#endif
