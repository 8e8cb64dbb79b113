/* Masks payment card numbers. If a string in the payload has 13 to 19 digits in a row, even in groups separated by
 * single spaces or hyphens, all but the last four become asterisks. JSON numbers do not change.
 *
 * The plugin scans the JSON text once and copies it only if there is something to mask. A digit may be an escape. */
#include "signalbox.h"
#include "signalbox_json.h"

enum { DIGITS_MIN = 13, DIGITS_MAX = 19, DIGITS_LEFT = 4 };

/* A character of a JSON string: its length in the JSON text, and its ASCII value or 0. */
typedef struct { size_t length; char is; } character;

static character at(sb_string text, size_t i) {
    char c = text.at[i];
    if (c != '\\') return (character){1, (unsigned char)c < 0x80 ? c : 0};
    if (text.at[i + 1] != 'u') return (character){2, 0};
    int32_t unit = sb_hex(text.at + i + 2, text.at + text.length);
    return (character){6, unit < 0x80 ? (char)unit : 0};
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Returns the end of the row of digits that begins at `start`, and counts its digits. */
static size_t row(sb_string text, size_t start, size_t *digits) {
    size_t end = start;
    *digits = 0;
    for (size_t i = start; i < text.length;) {
        character next = at(text, i);
        if (is_digit(next.is)) {
            ++*digits;
            end = i + next.length;
        } else if ((next.is != ' ' && next.is != '-') || end != i) {
            break; /* Neither a digit nor the first separator after one. */
        }
        i += next.length;
    }
    return end;
}

/* Copies a row of digits, with the first `hidden` digits as asterisks. */
static char *masked(char *to, sb_string text, size_t start, size_t end, size_t hidden) {
    for (size_t i = start; i < end;) {
        character next = at(text, i);
        if (is_digit(next.is) && hidden > 0) {
            *to++ = '*';
            hidden--;
        } else {
            memcpy(to, text.at + i, next.length);
            to += next.length;
        }
        i += next.length;
    }
    return to;
}

static sb_outcome transform(sb_message message) {
    sb_rejection unreadable = sb_check(message);
    if (unreadable.code.length) return (sb_outcome){SB_REFUSED, .rejection = unreadable};
    sb_string in = message.payload;
    char *out = NULL, *to = NULL;
    size_t copied = 0;
    bool in_text = false;
    for (size_t i = 0; i < in.length;) {
        character next = in_text ? at(in, i) : (character){1, in.at[i]};
        size_t digits, end = i + next.length;
        if (next.length == 1 && next.is == '"') {
            in_text = !in_text;
        } else if (in_text && is_digit(next.is)) {
            end = row(in, i, &digits);
            if (digits >= DIGITS_MIN && digits <= DIGITS_MAX) {
                if (!out) out = to = sb_alloc(in.length);
                memcpy(to, in.at + copied, i - copied);
                to = masked(to + (i - copied), in, i, end, digits - DIGITS_LEFT);
                copied = end;
            }
        }
        i = end;
    }
    if (!out) return (sb_outcome){SB_UNCHANGED};
    memcpy(to, in.at + copied, in.length - copied);
    to += in.length - copied;
    return (sb_outcome){SB_CHANGED, {message.type, message.destination, {out, (size_t)(to - out)}}};
}

SIGNALBOX_TRANSFORMATION(transform)
