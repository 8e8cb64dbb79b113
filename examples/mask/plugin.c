/* Masks numbers of payment cards: in texts of the payload, of 13 to 19 digits in a row, also in groups with single blanks
 * or hyphens between them, all but the last four become asterisks. Numbers of the JSON are left alone.
 *
 * It looks at the JSON text as it is, once, and copies only where there is something to mask. */
#include "signalbox.h"

enum { DIGITS_MIN = 13, DIGITS_MAX = 19, DIGITS_LEFT = 4 };

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* How far a row of digits goes from `at`, and how many it has. */
static size_t row(sb_string text, size_t at, size_t *digits) {
    size_t end = at;
    *digits = 0;
    for (size_t i = at; i < text.length; i++) {
        if (is_digit(text.at[i])) {
            ++*digits;
            end = i + 1;
        } else if ((text.at[i] != ' ' && text.at[i] != '-') || end != i) {
            break; /* Neither a digit nor the first blank after one. */
        }
    }
    return end - at;
}

static sb_outcome transform(sb_message message) {
    sb_string in = message.payload;
    char *out = NULL;
    bool in_text = false;
    for (size_t i = 0; i < in.length; i++) {
        char c = in.at[i];
        if (in_text && c == '\\') {
            i += in.at[i + 1] == 'u' ? 5 : 1; /* The digits of an escape are none. */
        } else if (c == '"') {
            in_text = !in_text;
        } else if (in_text && is_digit(c)) {
            size_t digits, length = row(in, i, &digits);
            if (digits >= DIGITS_MIN && digits <= DIGITS_MAX) {
                if (!out) {
                    out = sb_alloc(in.length);
                    memcpy(out, in.at, in.length);
                }
                for (size_t k = i; digits > DIGITS_LEFT; k++) {
                    if (!is_digit(in.at[k])) continue;
                    out[k] = '*';
                    digits--;
                }
            }
            i += length - 1;
        }
    }
    if (!out) return (sb_outcome){SB_UNCHANGED};
    return (sb_outcome){SB_CHANGED, {message.type, message.destination, {out, in.length}}};
}

SIGNALBOX_TRANSFORMATION(transform)
