/* A plugin with a validator, a transformer and an event type of its own. What can be asked of the server is in
 * signalbox.h. Payloads are JSON texts; this plugin looks at them as they are. */
#include "signalbox.h"

static bool is_note(sb_message message) { return sb_equal(message.type, SB("note")); }

/* Asked first: a refusal is told to the sender, and the message goes no further. */
static sb_rejection validate(sb_message message) {
    if (!is_note(message)) return SB_OK;
    if (message.payload.at[0] != '"') return SB_REJECT("invalid_payload", "a note is a text");
    size_t characters = 0;
    /* Of a character in UTF-8 all bytes but the first look like 10xxxxxx. The quotes do not count. */
    for (size_t i = 1; i + 1 < message.payload.length; i++) characters += (message.payload.at[i] & 0xc0) != 0x80;
    return characters > 280 ? SB_REJECT("too_long", "a note has at most 280 characters") : SB_OK;
}

/* Asked next. Say "unchanged" wherever nothing changes: that is the fastest answer. */
static sb_outcome transform(sb_message message) {
    sb_string in = message.payload;
    if (!is_note(message) || !memmem(in.at, in.length, ":)", 2)) return (sb_outcome){SB_UNCHANGED};
    char *out = sb_alloc(in.length * 2), *to = out; /* A face has four bytes, a smile two. */
    for (size_t i = 0; i < in.length; i++) {
        bool smile = i + 1 < in.length && in.at[i] == ':' && in.at[i + 1] == ')';
        if (smile) {
            memcpy(to, "\xF0\x9F\x99\x82", 4);
            to += 4;
            i++;
        } else {
            *to++ = in.at[i];
        }
    }
    sb_string payload = {out, (size_t)(to - out)};
    return (sb_outcome){SB_CHANGED, {message.type, message.destination, payload}};
}

/* Answers the event type that is named below, to the sender alone. */
static sb_actions hello(sb_message message) {
    sb_action *reply = sb_alloc(sizeof *reply);
    sb_string greeting = sb_quote(sb_text(SB("Hello, "), message.sender));
    *reply = (sb_action){SB_ANNOUNCE, {SB("my-plugin.greeting"), {SB_SENDER}, greeting}};
    return (sb_actions){reply, 1};
}

/* A component exports the interfaces that are named here. */
SIGNALBOX_VALIDATION(validate)
SIGNALBOX_TRANSFORMATION(transform)
SIGNALBOX_EVENTS(hello, SB("my-plugin.hello"))
