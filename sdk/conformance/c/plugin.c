/* The conformance plugin for cases.json, in C. There is no JSON library: payloads are assembled as strings. */
#include "signalbox.h"
#include "signalbox_json.h"
#include "signalbox_rooms.h"

static char config[4096];
static size_t config_length;
static uint32_t hits;

#define IS(literal) sb_equal(message.type, SB(literal))

/* Whether the JSON is a 32-bit integer. */
static bool is_whole(sb_string json) {
    char *end, digits[12] = {0};
    if (json.length >= sizeof digits) return false;
    memcpy(digits, json.at, json.length);
    long long value = strtoll(digits, &end, 10);
    return end == digits + json.length && value >= INT32_MIN && value <= INT32_MAX;
}

static sb_rejection typed(sb_message message) {
    sb_string field, text, n;
    bool fits = sb_field(message.payload, SB("text"), &field) && sb_text_of(field, &text);
    if (!fits || !sb_field(message.payload, SB("n"), &n) || !is_whole(n))
        return SB_REJECT("invalid_payload", "it has a text and a whole number of 32 bits");
    return sb_equal(text, SB("bad")) ? SB_REJECT("bad", "bad") : SB_OK;
}

static sb_rejection validate(sb_message message) {
    if (!IS("c.parse") && !IS("c.typed")) return SB_OK;
    sb_rejection unreadable = sb_check(message);
    if (unreadable.code.length || IS("c.parse")) return unreadable;
    return typed(message);
}

static bool says(sb_message message, const char *word) {
    return message.payload.length == strlen(word) + 2 && memcmp(message.payload.at + 1, word, strlen(word)) == 0;
}

static sb_outcome transform(sb_message message) {
    sb_draft same = {message.type, message.destination, message.payload};
    if (IS("c.echo") || IS("c.raw")) return (sb_outcome){SB_CHANGED, same};
    if (IS("c.text")) {
        sb_string open = {message.payload.at, message.payload.length - 1};
        same.payload = sb_text(open, SB("!\""));
        return (sb_outcome){SB_CHANGED, same};
    }
    if (IS("c.drop")) return (sb_outcome){SB_DROPPED};
    if (IS("c.move")) {
        sb_destination to = {SB_NOBODY};
        if (says(message, "sender")) to.to = SB_SENDER;
        if (says(message, "everyone")) to.to = SB_EVERYONE;
        if (says(message, "user")) to = (sb_destination){SB_USER, SB("zoë")};
        if (says(message, "room")) to = (sb_destination){SB_ROOM, SB("café")};
        return (sb_outcome){SB_CHANGED, {SB("c.moved"), to, SB("1")}};
    }
    if (IS("c.bad-json")) {
        same.payload = SB("{");
        return (sb_outcome){SB_CHANGED, same};
    }
    return (sb_outcome){SB_UNCHANGED};
}

static sb_outcome screen(sb_message message) {
    sb_rejection refused = validate(message);
    return refused.code.length ? (sb_outcome){SB_REFUSED, .rejection = refused} : transform(message);
}

static sb_string number(int64_t value) {
    char *end = (char *)sb_alloc(24) + 24, *at = end;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) *--at = '-';
    return (sb_string){at, (size_t)(end - at)};
}

static sb_bytes bytes(sb_string text) { return (sb_bytes){(const uint8_t *)text.at, text.length}; }

static sb_string text(sb_bytes value) { return (sb_string){(const char *)value.at, value.length}; }

static sb_string truth(bool is) { return is ? SB("true") : SB("false"); }

static sb_string stored(void) {
    sb_bytes value, gone, expected = bytes(SB("value ü"));
    int64_t five = 0, three = 0, none;
    bool first = false, second = true;
    sb_set(SB("k"), expected, 0);
    sb_get(SB("k"), &value);
    sb_increment(SB("n"), 5, 0, &five);
    sb_increment(SB("n"), -2, 60, &three);
    sb_compare_and_swap(SB("k"), &expected, bytes(SB("x")), 0, &first);
    sb_compare_and_swap(SB("k"), &expected, bytes(SB("y")), 0, &second);
    sb_remove(SB("k"));
    sb_get(SB("k"), &gone);
    sb_set(SB("t"), bytes(SB("abc")), 0);
    sb_store_error error = sb_increment(SB("t"), 1, 0, &none);
    return sb_text(SB("["), sb_quote(text(value)), SB(","), number(five), SB(","), number(three), SB(","), truth(first),
                   SB(","), truth(second), SB(","), gone.at ? SB("1") : SB("null"), SB(","),
                   error == SB_NOT_A_NUMBER ? SB("\"not-a-number\"") : SB("0"), SB("]"));
}

static sb_string big(void) {
    int64_t sum = 0;
    sb_set(SB("big"), bytes(SB("9007199254740993")), 0);
    sb_increment(SB("big"), 0, 0, &sum);
    return sb_quote(number(sum));
}

static sb_string about(void) {
    sb_client client;
    if (!sb_current_client(&client)) return SB("null");
    return sb_text(SB("["), sb_quote(client.user), SB(","), client.claims, SB("]"));
}

static sb_actions reply(sb_string type, sb_string payload) {
    sb_action *action = sb_alloc(sizeof *action);
    *action = (sb_action){SB_ANNOUNCE, {type, {SB_SENDER}, payload}};
    return (sb_actions){action, 1};
}

static sb_actions handle(sb_message message) {
    if (IS("c.actions")) {
        sb_action *list = sb_alloc(6 * sizeof *list);
        list[0] = (sb_action){SB_DELIVER};
        list[1] = (sb_action){SB_SEND, {SB("c.sent"), {SB_USER, SB("bob")}, SB("1")}};
        list[2] = (sb_action){SB_ANNOUNCE, {SB("c.said"), {SB_EVERYONE}, SB("[1.5]")}};
        list[3] = (sb_action){SB_JOIN, .room = SB("café")};
        list[4] = (sb_action){SB_LEAVE, .room = SB("café")};
        list[5] = (sb_action){SB_DISCONNECT, .disconnection = {4501, SB("go away")}};
        return (sb_actions){list, 6};
    }
    if (IS("c.many")) {
        sb_action *list = sb_alloc(300 * sizeof *list);
        for (int i = 0; i < 300; i++) list[i] = (sb_action){SB_JOIN, .room = SB("a")};
        return (sb_actions){list, 300};
    }
    if (IS("c.config")) return reply(message.type, (sb_string){config, config_length});
    if (IS("c.context")) return reply(message.type, about());
    if (IS("c.store")) return reply(message.type, stored());
    if (IS("c.big")) return reply(message.type, big());
    if (IS("c.clock")) return reply(message.type, truth(sb_now() > 1700000000000 && sb_node().length > 0));
    if (IS("c.observe")) {
        sb_count(SB("seen"), 2);
        sb_observe(SB("size"), 1.5);
        sb_log(SB_INFO, SB("seen ü"));
    }
    if (IS("c.hits")) {
        hits++;
        return reply(message.type, number(hits));
    }
    if (IS("c.fail")) abort();
    if (IS("c.loop"))
        for (volatile int i = 0;; i++) continue;
    return (sb_actions){0};
}

/* The text of a JSON string. */
static sb_string text_of(sb_string json) {
    sb_string text = {0};
    sb_text_of(json, &text);
    return text;
}

static sb_string room_error(sb_room_error error) {
    static const sb_string names[] = {SB("\"switched-off\""), SB("\"invalid\""), SB("\"too-many-calls\""), SB("\"unavailable\"")};
    return names[error];
}

static sb_string members(sb_string room) {
    sb_members found;
    sb_room_error error = sb_room_members(room, &found);
    if (error != SB_ROOM_READ) return room_error(error);
    sb_string list = SB("");
    for (size_t i = 0; i < found.length; i++) {
        sb_member member = found.at[i];
        list = sb_text(list, i ? SB(",[") : SB("["), sb_quote(member.user), SB(","), number(member.connections), SB(","),
                       member.has_info ? member.info : SB("null"), SB("]"));
    }
    return sb_text(SB("["), list, SB("]"));
}

static sb_string history(sb_string room, uint64_t before, uint32_t limit) {
    sb_kept_messages kept;
    sb_room_error error = sb_room_history(room, before, limit, &kept);
    if (error != SB_ROOM_READ) return room_error(error);
    sb_string list = SB("");
    for (size_t i = 0; i < kept.length; i++) {
        sb_kept_message message = kept.at[i];
        list = sb_text(list, i ? SB(",[") : SB("["), number((int64_t)message.offset), SB(","), sb_quote(message.type), SB(","),
                       sb_quote(message.sender), SB(","), message.payload, SB(","), number((int64_t)message.timestamp), SB("]"));
    }
    return sb_text(SB("["), list, SB("]"));
}

static sb_string room_state(sb_string room) {
    uint32_t count;
    sb_room_error error = sb_room_count(room, &count);
    sb_string counted = error == SB_ROOM_READ ? number(count) : room_error(error);
    return sb_text(SB("["), counted, SB(","), members(room), SB(","), history(room, 0, 100), SB("]"));
}

static uint64_t field(sb_string object, sb_string name) {
    sb_string value;
    return sb_field(object, name, &value) ? strtoull(sb_text(value, SB("\0")).at, NULL, 10) : 0;
}

static sb_string page(sb_string asked) {
    sb_string room = SB("null");
    sb_field(asked, SB("room"), &room);
    return history(text_of(room), field(asked, SB("before")), (uint32_t)field(asked, SB("limit")));
}

static sb_string calls(void) {
    int64_t answered = 0;
    uint32_t count;
    sb_room_error error;
    while ((error = sb_room_count(SB("café"), &count)) == SB_ROOM_READ) answered++;
    return sb_text(SB("["), number(answered), SB(","), room_error(error), SB("]"));
}

static sb_reply who(sb_message message) {
    sb_string room, users = SB("");
    sb_members found;
    sb_rejection unreadable = sb_check(message);
    if (unreadable.code.length) return (sb_reply){.rejection = unreadable};
    if (!sb_text_of(message.payload, &room)) return (sb_reply){.rejection = SB_REJECT("invalid_payload", "a room is a text")};
    sb_room_error error = sb_room_members(room, &found);
    if (error != SB_ROOM_READ) return (sb_reply){.rejection = SB_REJECT("room_switched_off", "the room has no list")};
    for (size_t i = 0; i < found.length; i++) users = sb_text(users, i ? SB(",") : SB(""), sb_quote(found.at[i].user));
    return (sb_reply){sb_text(SB("["), users, SB("]"))};
}

static sb_reply respond(sb_message message) {
    if (IS("c.who")) return who(message);
    if (IS("c.ask-acts")) {
        sb_action *list = sb_alloc(3 * sizeof *list);
        list[0] = (sb_action){SB_DELIVER};
        list[1] = (sb_action){SB_ANNOUNCE, {SB("c.asked"), {SB_SENDER}, message.payload}};
        list[2] = (sb_action){SB_JOIN, .room = SB("café")};
        return (sb_reply){SB("{\"done\":true}"), list, 3};
    }
    if (IS("c.ask-bad")) return (sb_reply){SB("{")};
    if (IS("c.ask-deep")) {
        char *at = sb_alloc(202);
        memset(at, '[', 101);
        memset(at + 101, ']', 101);
        return (sb_reply){{at, 202}};
    }
    if (IS("c.ask-refused")) return (sb_reply){.rejection = SB_REJECT("no_answer", "nö, \"so\" nicht 🙂")};
    if (IS("c.room")) return (sb_reply){room_state(text_of(message.payload))};
    if (IS("c.history")) return (sb_reply){page(message.payload)};
    if (IS("c.calls")) return (sb_reply){calls()};
    return (sb_reply){message.payload};
}

static sb_actions changed(sb_string type, sb_client client, sb_string room, uint32_t connections) {
    if (sb_equal(client.user, SB("quiet"))) return (sb_actions){0};
    sb_string change = sb_text(SB("["), sb_quote(client.user), SB(","), sb_quote(room), SB(","), number(connections), SB("]"));
    sb_action *action = sb_alloc(sizeof *action);
    *action = (sb_action){SB_ANNOUNCE, {type, {SB_ROOM, room}, change}};
    return (sb_actions){action, 1};
}

static sb_actions joined(sb_client client, sb_string room, uint32_t connections) {
    return changed(SB("c.joined"), client, room, connections);
}

static sb_actions left(sb_client client, sb_string room, uint32_t connections) {
    return changed(SB("c.left"), client, room, connections);
}

static sb_actions connected(sb_client client) {
    if (sb_equal(client.user, SB("banned"))) return (sb_actions){.rejection = SB_REJECT("banned", "go away")};
    sb_action *join = sb_alloc(sizeof *join);
    *join = (sb_action){SB_JOIN, .room = sb_text(SB("home:"), client.user)};
    return (sb_actions){join, 1};
}

static sb_actions disconnected(sb_client client, sb_disconnection how) {
    (void)client, (void)how;
    return (sb_actions){0};
}

static sb_rejection authorize(sb_client client, sb_string room) {
    (void)client;
    return sb_equal(room, SB("secret")) ? SB_REJECT("secret", "not for you") : SB_OK;
}

static sb_string init(sb_string given) {
    if (given.length > sizeof config) return SB("the configuration is longer than 4096 bytes");
    memcpy(config, given.at, given.length);
    config_length = given.length;
    return SB("");
}

static sb_string self_test(void) { return SB(""); }

static sb_snapshot save(void) {
    uint32_t *kept = sb_alloc(sizeof *kept);
    *kept = hits;
    return (sb_snapshot){1, {(const uint8_t *)kept, sizeof *kept}, {0, 0}};
}

static sb_string restore(sb_snapshot snapshot) {
    if (snapshot.data.length != sizeof hits) return SB("the snapshot is of another length");
    memcpy(&hits, snapshot.data.at, sizeof hits);
    return SB("");
}

SIGNALBOX_VALIDATION(validate)
SIGNALBOX_TRANSFORMATION(transform)
SIGNALBOX_SCREENING(screen)
SIGNALBOX_EVENTS(handle, SB("c.actions"), SB("c.none"), SB("c.many"), SB("c.config"), SB("c.context"), SB("c.store"),
                 SB("c.big"), SB("c.clock"), SB("c.observe"), SB("c.fail"), SB("c.loop"), SB("c.hits"))
SIGNALBOX_REQUESTS(respond, SB("c.ask"), SB("c.ask-acts"), SB("c.ask-bad"), SB("c.ask-deep"), SB("c.ask-refused"), SB("c.room"),
                   SB("c.history"), SB("c.calls"), SB("c.who"))
SIGNALBOX_CONNECTIONS(connected, disconnected)
SIGNALBOX_ROOMS(authorize)
SIGNALBOX_MEMBERSHIP(joined, left)
SIGNALBOX_LIFECYCLE(init, self_test)
SIGNALBOX_HANDOVER(save, restore)
