/* The members and the history of rooms: the interface `room-state`. Include this header after signalbox.h. */
#ifndef SIGNALBOX_ROOMS_H
#define SIGNALBOX_ROOMS_H

#include "signalbox.h"

/* A user in a room. `connections` is the number of the user's connections in the room, `info` the claim `info` of the
 * user's token as JSON text; without the claim it is empty. */
typedef struct { sb_string user; uint32_t connections; bool has_info; sb_string info; } sb_member;
typedef struct { const sb_member *at; size_t length; } sb_members;

/* A message that the history of a room keeps. `offset` is its number in the room, from 1. `sender` is empty if the
 * platform sent it, `payload` is JSON text, `timestamp` is in milliseconds since 1970. */
typedef struct {
    uint64_t offset;
    sb_string type, sender, payload;
    uint64_t timestamp;
} sb_kept_message;
typedef struct { const sb_kept_message *at; size_t length; } sb_kept_messages;

_Static_assert(sizeof(sb_member) == 24 && sizeof(sb_kept_message) == 40, "this is for wasm32");

SB_IMPORT("room-state", "count") extern void sb_import_room_count(const char *room, size_t length, void *area);
SB_IMPORT("room-state", "members") extern void sb_import_room_members(const char *room, size_t length, void *area);
SB_IMPORT("room-state", "history")
extern void sb_import_room_history(const char *room, size_t length, uint32_t has_before, uint64_t before, uint32_t limit,
                                   void *area);

/* Why a question about a room has no answer; SB_ROOM_READ if it has one. SB_ROOM_SWITCHED_OFF: the room's rule switches on
 * no presence for sb_room_members, no history for sb_room_history. */
typedef enum {
    SB_ROOM_READ = -1,
    SB_ROOM_SWITCHED_OFF,
    SB_ROOM_INVALID,
    SB_ROOM_TOO_MANY_CALLS,
    SB_ROOM_UNAVAILABLE
} sb_room_error;

/* Counts the connections in a room, on all nodes. */
static inline sb_room_error sb_room_count(sb_string room, uint32_t *count) {
    struct { uint8_t is_error; union { uint8_t error; uint32_t count; } is; } area;
    sb_import_room_count(room.at, room.length, &area);
    *count = 0;
    if (area.is_error) return (sb_room_error)area.is.error;
    *count = area.is.count;
    return SB_ROOM_READ;
}

/* Gets the users in a room, on all nodes, ordered by ID. */
static inline sb_room_error sb_room_members(sb_string room, sb_members *members) {
    struct { uint8_t is_error; union { uint8_t error; struct { sb_member *at; size_t length; } list; } is; } area;
    sb_import_room_members(room.at, room.length, &area);
    *members = (sb_members){0, 0};
    if (area.is_error) return (sb_room_error)area.is.error;
    for (size_t i = 0; i < area.is.list.length; i++)
        if (!area.is.list.at[i].has_info) area.is.list.at[i].info = (sb_string){0, 0};
    *members = (sb_members){area.is.list.at, area.is.list.length};
    return SB_ROOM_READ;
}

/* Gets the last messages of a room, at most `limit`, the oldest first. If `before` is not 0, they are those before this
 * offset. */
static inline sb_room_error sb_room_history(sb_string room, uint64_t before, uint32_t limit, sb_kept_messages *messages) {
    struct { uint8_t is_error; union { uint8_t error; sb_kept_messages list; } is; } area;
    sb_import_room_history(room.at, room.length, before != 0, before, limit, &area);
    *messages = (sb_kept_messages){0, 0};
    if (area.is_error) return (sb_room_error)area.is.error;
    *messages = area.is.list;
    return SB_ROOM_READ;
}

#endif
