/* Reads payloads, which are JSON text: sb_check refuses JSON that receivers could read differently, sb_text_of and
 * sb_field read JSON that it has accepted. Include this header after signalbox.h. */
#ifndef SIGNALBOX_JSON_H
#define SIGNALBOX_JSON_H

#include "signalbox.h"

/* The deepest nesting that the server allows in a payload. */
enum { SB_LEVELS_MAX = 100 };

typedef struct { uint32_t object; sb_string name; } sb_key;

/* The state of a parser: its position, the first problem, and the keys of all objects so far. */
typedef struct {
    const char *at, *end;
    sb_string problem;
    uint32_t objects;
    sb_key *keys;
    size_t count, room;
} sb_reader;

static inline bool sb_wrong(sb_reader *in, sb_string problem) {
    if (!in->problem.length) in->problem = problem;
    return false;
}

static inline bool sb_not_json(sb_reader *in) { return sb_wrong(in, SB("the payload is not JSON")); }

static inline void sb_skip_blanks(sb_reader *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r')) in->at++;
}

/* Skips `c` if it is next. */
static inline bool sb_skip(sb_reader *in, char c) {
    if (in->at == in->end || *in->at != c) return false;
    in->at++;
    return true;
}

/* The value of four hexadecimal digits; -1 if one of them is invalid. */
static inline int32_t sb_hex(const char *at, const char *end) {
    if (end - at < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i], low = (char)(c | 0x20);
        if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
        else if (low >= 'a' && low <= 'f') value = value * 16 + (low - 'a' + 10);
        else return -1;
    }
    return value;
}

/* Skips an escape and returns its character; -1 if it is invalid. */
static inline int32_t sb_read_escape(sb_reader *in) {
    static const char names[] = "\"\\/bfnrt", characters[] = "\"\\/\b\f\n\r\t";
    if (in->end - in->at < 2) return -1;
    char kind = in->at[1];
    in->at += 2;
    if (kind != 'u') {
        const char *found = kind ? strchr(names, kind) : NULL;
        return found ? characters[found - names] : -1;
    }
    int32_t unit = sb_hex(in->at, in->end);
    if (unit < 0) return -1;
    in->at += 4;
    if (unit < 0xd800 || unit > 0xdfff) return unit;
    bool follows = unit < 0xdc00 && in->end - in->at >= 6 && in->at[0] == '\\' && in->at[1] == 'u';
    int32_t low = follows ? sb_hex(in->at + 2, in->end) : -1;
    if (low < 0xdc00 || low > 0xdfff) {
        sb_wrong(in, SB("the payload has half of a surrogate pair in a text"));
        return -1;
    }
    in->at += 6;
    return 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
}

static inline char *sb_put(char *to, int32_t c) {
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3f));
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* Skips a string and returns its content: a part of the JSON text if it has no escape, otherwise a copy. */
static inline bool sb_read_string(sb_reader *in, sb_string *text) {
    if (!sb_skip(in, '"')) return sb_not_json(in);
    const char *start = in->at;
    char *copy = NULL, *to = NULL;
    while (in->at < in->end && *in->at != '"') {
        if ((unsigned char)*in->at < 0x20) return sb_not_json(in);
        if (*in->at != '\\') {
            if (copy) *to++ = *in->at;
            in->at++;
            continue;
        }
        if (!copy) {
            /* An escape is longer than the character that it encodes. */
            copy = sb_alloc((size_t)(in->end - start));
            memcpy(copy, start, (size_t)(in->at - start));
            to = copy + (in->at - start);
        }
        int32_t character = sb_read_escape(in);
        if (character < 0) return sb_not_json(in);
        to = sb_put(to, character);
    }
    if (copy) *text = (sb_string){copy, (size_t)(to - copy)};
    else *text = (sb_string){start, (size_t)(in->at - start)};
    return sb_skip(in, '"') || sb_not_json(in);
}

static inline size_t sb_skip_digits(sb_reader *in) {
    const char *start = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
    return (size_t)(in->at - start);
}

/* Whether a number is too large for a double. Its digits begin at `at`, and the first one stands for 10^`exponent`. */
static inline bool sb_too_large(const char *at, const char *end, long exponent) {
    static const char limit[] = "17976931348623158079"; /* Halfway from the largest double to the next step. */
    while (at < end && (*at == '0' || *at == '.')) {
        if (*at == '0') exponent--;
        at++;
    }
    if (at == end || exponent < 308) return false;
    if (exponent > 308) return true;
    for (const char *most = limit; *most; most++) {
        if (at < end && *at == '.') at++;
        char digit = at < end ? *at++ : '0';
        if (digit != *most) return digit > *most;
    }
    return true;
}

static inline bool sb_read_number(sb_reader *in) {
    sb_skip(in, '-');
    const char *digits = in->at;
    size_t whole = sb_skip_digits(in);
    if (whole == 0 || (whole > 1 && *digits == '0')) return sb_not_json(in);
    if (sb_skip(in, '.') && sb_skip_digits(in) == 0) return sb_not_json(in);
    const char *end = in->at;
    long exponent = 0;
    if (sb_skip(in, 'e') || sb_skip(in, 'E')) {
        bool negative = sb_skip(in, '-');
        if (!negative) sb_skip(in, '+');
        const char *start = in->at;
        if (sb_skip_digits(in) == 0) return sb_not_json(in);
        for (; start < in->at; start++)
            if (exponent < 100000000) exponent = exponent * 10 + (*start - '0');
        if (negative) exponent = -exponent;
    }
    if (sb_too_large(digits, end, exponent + (long)whole - 1))
        return sb_wrong(in, SB("the payload has a number that is too large"));
    return true;
}

static inline bool sb_read_word(sb_reader *in, sb_string word) {
    if ((size_t)(in->end - in->at) < word.length || memcmp(in->at, word.at, word.length) != 0) return sb_not_json(in);
    in->at += word.length;
    return true;
}

static inline void sb_note_key(sb_reader *in, uint32_t object, sb_string name) {
    if (in->count == in->room) {
        size_t room = in->room ? in->room * 2 : 32;
        sb_key *keys = sb_alloc(room * sizeof *keys);
        if (in->count) memcpy(keys, in->keys, in->count * sizeof *keys);
        in->keys = keys;
        in->room = room;
    }
    in->keys[in->count++] = (sb_key){object, name};
}

static inline bool sb_read_value(sb_reader *in, int level);

static inline bool sb_read_object(sb_reader *in, int level) {
    uint32_t object = in->objects++;
    in->at++;
    sb_skip_blanks(in);
    if (sb_skip(in, '}')) return true;
    do {
        sb_string name;
        sb_skip_blanks(in);
        if (!sb_read_string(in, &name)) return false;
        sb_note_key(in, object, name);
        sb_skip_blanks(in);
        if (!sb_skip(in, ':')) return sb_not_json(in);
        if (!sb_read_value(in, level + 1)) return false;
    } while (sb_skip(in, ','));
    return sb_skip(in, '}') || sb_not_json(in);
}

static inline bool sb_read_array(sb_reader *in, int level) {
    in->at++;
    sb_skip_blanks(in);
    if (sb_skip(in, ']')) return true;
    do {
        if (!sb_read_value(in, level + 1)) return false;
    } while (sb_skip(in, ','));
    return sb_skip(in, ']') || sb_not_json(in);
}

/* Skips a value and the whitespace around it. */
static inline bool sb_read_value(sb_reader *in, int level) {
    bool read;
    sb_string text;
    sb_skip_blanks(in);
    if (in->at == in->end) return sb_not_json(in);
    if ((*in->at == '{' || *in->at == '[') && level > SB_LEVELS_MAX)
        return sb_wrong(in, SB("the payload is nested more than 100 levels deep"));
    switch (*in->at) {
    case '{': read = sb_read_object(in, level); break;
    case '[': read = sb_read_array(in, level); break;
    case '"': read = sb_read_string(in, &text); break;
    case 't': read = sb_read_word(in, SB("true")); break;
    case 'f': read = sb_read_word(in, SB("false")); break;
    case 'n': read = sb_read_word(in, SB("null")); break;
    default: read = sb_read_number(in);
    }
    if (read) sb_skip_blanks(in);
    return read;
}

static inline int sb_compare_keys(const void *a, const void *b) {
    const sb_key *one = a, *other = b;
    if (one->object != other->object) return one->object < other->object ? -1 : 1;
    if (one->name.length != other->name.length) return one->name.length < other->name.length ? -1 : 1;
    return memcmp(one->name.at, other->name.at, one->name.length);
}

/* Refuses a payload that is not JSON, or that receivers could read differently: the same key twice in an object, half
 * of a surrogate pair, a number beyond 1.8e308, more than 100 levels. Call it before reading anything from a
 * payload. */
static inline sb_rejection sb_check(sb_message message) {
    sb_reader in = {.at = message.payload.at, .end = message.payload.at + message.payload.length};
    if (!sb_read_value(&in, 1)) return (sb_rejection){SB("invalid_payload"), in.problem};
    if (in.at != in.end) return SB_REJECT("invalid_payload", "the payload is not JSON");
    if (in.count > 1) qsort(in.keys, in.count, sizeof *in.keys, sb_compare_keys);
    for (size_t i = 1; i < in.count; i++)
        if (sb_compare_keys(&in.keys[i - 1], &in.keys[i]) == 0)
            return SB_REJECT("invalid_payload", "the payload has an object with the same key twice");
    return SB_OK;
}

/* Decodes a JSON string, without quotes and escapes; false if the JSON is not a string. */
static inline bool sb_text_of(sb_string json, sb_string *text) {
    sb_reader in = {.at = json.at, .end = json.at + json.length};
    sb_skip_blanks(&in);
    return in.at < in.end && *in.at == '"' && sb_read_string(&in, text);
}

/* Finds a field of an object by its exact name and returns its JSON; false if the JSON is not an object or has no such
 * field. */
static inline bool sb_field(sb_string json, sb_string name, sb_string *value) {
    sb_reader in = {.at = json.at, .end = json.at + json.length};
    sb_skip_blanks(&in);
    if (!sb_skip(&in, '{')) return false;
    do {
        sb_string key;
        sb_skip_blanks(&in);
        if (!sb_read_string(&in, &key)) return false;
        sb_skip_blanks(&in);
        if (!sb_skip(&in, ':')) return false;
        sb_skip_blanks(&in);
        const char *start = in.at;
        if (!sb_read_value(&in, 1)) return false;
        if (sb_equal(key, name)) {
            *value = (sb_string){start, (size_t)(in.at - start)};
            return true;
        }
    } while (sb_skip(&in, ','));
    return false;
}

#endif
