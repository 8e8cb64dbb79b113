/* A plugin with a validator, a transformer and a custom event type. The functions of the server are in signalbox.h,
 * those that read payloads in signalbox_json.h. */
#include "signalbox.h"
#include "signalbox_json.h"

static bool is_note(sb_message message) { return sb_equal(message.type, SB("note")); }

/* Called first. A refusal is sent to the sender, and the message goes no further. */
static sb_rejection validate(sb_message message) {
    if (!is_note(message)) return SB_OK;
    sb_rejection unreadable = sb_check(message);
    if (unreadable.code.length) return unreadable;
    sb_string note;
    if (!sb_text_of(message.payload, &note)) return SB_REJECT("invalid_payload", "a note is a text");
    size_t characters = 0;
    /* In UTF-8, every byte of a character except the first has the form 10xxxxxx. */
    for (size_t i = 0; i < note.length; i++) characters += (note.at[i] & 0xc0) != 0x80;
    return characters > 280 ? SB_REJECT("too_long", "a note has at most 280 characters") : SB_OK;
}

/* Called next. Return "unchanged" if nothing changes: that is the fastest answer. */
static sb_outcome transform(sb_message message) {
    sb_string note;
    if (!is_note(message) || !sb_text_of(message.payload, &note)) return (sb_outcome){SB_UNCHANGED};
    if (!note.length || !memmem(note.at, note.length, ":)", 2)) return (sb_outcome){SB_UNCHANGED};
    char *out = sb_alloc(note.length * 2), *to = out; /* The face has four bytes, the smile two. */
    for (size_t i = 0; i < note.length; i++) {
        bool smile = i + 1 < note.length && note.at[i] == ':' && note.at[i + 1] == ')';
        if (smile) {
            memcpy(to, "\xF0\x9F\x99\x82", 4);
            to += 4;
            i++;
        } else {
            *to++ = note.at[i];
        }
    }
    sb_string payload = sb_quote((sb_string){out, (size_t)(to - out)});
    return (sb_outcome){SB_CHANGED, {message.type, message.destination, payload}};
}

/* Answers the event type that is listed below, only to the sender. */
static sb_actions hello(sb_message message) {
    sb_action *reply = sb_alloc(sizeof *reply);
    sb_string greeting = sb_quote(sb_text(SB("Hello, "), message.sender));
    *reply = (sb_action){SB_ANNOUNCE, {SB("my-plugin.greeting"), {SB_SENDER}, greeting}};
    return (sb_actions){reply, 1};
}

/* The component exports these interfaces. */
SIGNALBOX_VALIDATION(validate)
SIGNALBOX_TRANSFORMATION(transform)
SIGNALBOX_EVENTS(hello, SB("my-plugin.hello"))
