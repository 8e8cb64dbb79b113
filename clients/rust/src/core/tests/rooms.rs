//! Tests rooms.

use super::*;

type Joining = oneshot::Receiver<Result<Option<bool>, Error>>;

impl Bench {
    fn join(&mut self, room: &str, options: JoinOptions) -> Joining {
        let (reply, answer) = oneshot::channel();
        let room = room.to_owned();
        self.command(Command::Join {
            room,
            options,
            reply,
        });
        answer
    }

    /// Joins a room with a history that ends at 5.
    fn member(room: &str, options: JoinOptions) -> Self {
        let mut bench = Self::connected();
        let mut joining = bench.join(room, options);
        let frame = bench.sent().pop().unwrap();
        bench.ack(&frame, json!({"room": {"epoch": "e", "offset": 5}}));
        assert_eq!(joining.try_recv().unwrap(), Ok(None));
        bench
    }

    fn room_message(&mut self, room: &str, offset: u64) {
        self.receive_frame(
            &json!({"type": "t", "payload": offset, "room": room, "offset": offset}),
        );
    }
}

#[test]
fn rooms_are_joined_in_order_and_at_most_50_wait_for_an_answer() {
    let mut bench = Bench::user();
    let joins: Vec<_> = (0..120)
        .map(|n| bench.join(&format!("r{n}"), JoinOptions::default()))
        .collect();
    let queued = bench.send(Outgoing::new("t"));
    bench.command(Command::Connect);
    bench.welcome(json!({}));
    let mut order = Vec::new();
    for count in [50, 50, 20] {
        let sent = bench.sent();
        assert_eq!(sent.len(), count);
        for frame in sent {
            order.push(frame["room"].as_str().unwrap().to_owned());
            bench.ack(&frame, json!({}));
        }
    }
    let expected: Vec<_> = (0..120).map(|n| format!("r{n}")).collect();
    assert_eq!(order, expected);
    assert_eq!(bench.sent()[0]["type"], "t", "messages wait for the rooms");
    drop((joins, queued));
}

#[test]
fn messages_wait_no_longer_than_ten_seconds_for_rooms() {
    let mut bench = Bench::connected();
    bench.lose();
    let _joining = bench.join("r", JoinOptions::default());
    let _queued = bench.send(Outgoing::new("t"));
    bench.pass(Duration::from_millis(500));
    bench.welcome(json!({}));
    bench.pass(Duration::from_millis(9_999));
    assert_eq!(bench.sent().len(), 1);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.sent().pop().unwrap()["type"], "t");
}

#[test]
fn a_room_that_has_lost_its_history_did_not_recover() {
    let mut bench = Bench::member("r", JoinOptions::default());
    bench.events();
    bench.room_message("r", 7);
    let rejoin = bench.sent().pop().unwrap();
    assert_eq!(rejoin["payload"]["since"]["offset"], 5);
    bench.ack(&rejoin, json!({}));
    let events = bench.events();
    let [
        Event::Recovery {
            recovered, reason, ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*recovered, reason.as_deref()), (false, Some("no_history")));
}

#[test]
fn a_rejoin_names_the_position_and_a_gap_leads_to_one() {
    let mut bench = Bench::member("r", JoinOptions::default().last(2));
    bench.events();
    for offset in [6, 6, 5, 8, 9] {
        bench.room_message("r", offset);
    }
    assert_eq!(bench.messages().len(), 1);
    let sent = bench.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        sent[0]["payload"],
        json!({"since": {"epoch": "e", "offset": 6}})
    );
    bench.ack(
        &sent[0],
        json!({"room": {"epoch": "e", "offset": 8, "recovered": true, "count": 2}}),
    );
    bench.room_message("r", 7);
    bench.room_message("r", 8);
    assert_eq!(bench.messages().len(), 2);
    bench.reconnect();
    assert_eq!(bench.sent()[0]["payload"]["since"]["offset"], 8);
}

#[test]
fn a_loss_is_reported_before_later_messages_and_sets_the_position() {
    let mut bench = Bench::member("r", JoinOptions::default());
    bench.reconnect();
    bench.events();
    let frame = bench.sent().pop().unwrap();
    bench.ack(
        &frame,
        json!({"room": {"epoch": "f", "offset": 2, "recovered": false, "reason": "epoch"}}),
    );
    bench.room_message("r", 3);
    let events = bench.events();
    assert!(matches!(
        &events[..],
        [Event::Recovery { room: Some(_), recovered: false, reason: Some(reason) }, Event::Message(_)]
            if reason == "epoch"
    ));
    bench.receive(
        "joined",
        json!({"room": "r", "epoch": "g", "offset": 9, "recovered": false}),
    );
    bench.room_message("r", 10);
    assert_eq!(bench.events().len(), 2);
}

#[test]
fn a_temporarily_failed_join_is_retried_and_a_permanently_failed_one_is_not() {
    let mut bench = Bench::connected();
    let answer = bench.join("r", JoinOptions::default());
    for wait in [1, 2, 4] {
        let frame = bench.sent().pop().unwrap();
        bench.refuse(&frame, "busy", true);
        bench.pass(seconds(wait));
    }
    let frame = bench.sent().pop().unwrap();
    bench.events();
    bench.refuse(&frame, "forbidden_room", false);
    assert_eq!(code(answer), "forbidden_room");
    assert!(matches!(&bench.events()[..], [Event::Left { room, .. }] if room == "r"));
    bench.reconnect();
    assert!(bench.sent().is_empty());
}

#[test]
fn an_expired_room_token_is_replaced_and_any_other_removal_is_final() {
    let options = JoinOptions::default().token_callback(async |room| Ok(room));
    let mut bench = Bench::connected();
    let mut joining = bench.join("r", options);
    assert!(matches!(&bench.effects()[..], [Effect::Fetch(TokenOf::Room(room), _)] if room == "r"));
    let room = || TokenOf::Room("r".to_owned());
    bench.core.fetched(bench.now, room(), Ok("one".to_owned()));
    let frame = bench.sent().pop().unwrap();
    assert_eq!(frame["payload"], json!({"token": "one"}));
    bench.ack(&frame, json!({"room": {"epoch": "e", "offset": 5}}));
    assert_eq!(joining.try_recv().unwrap(), Ok(None));

    bench.receive("left", json!({"room": "r", "reason": "expired"}));
    assert!(matches!(&bench.effects()[..], [Effect::Fetch(..)]));
    bench.core.fetched(bench.now, room(), Ok("two".to_owned()));
    let frame = bench.sent().pop().unwrap();
    assert_eq!(frame["payload"]["token"], "two");
    assert_eq!(frame["payload"]["since"]["offset"], 5);
    bench.ack(
        &frame,
        json!({"room": {"epoch": "e", "offset": 5, "recovered": true}}),
    );
    bench.events();
    bench.receive("left", json!({"room": "r"}));
    assert!(matches!(&bench.events()[..], [Event::Left { error, .. }] if error.code == "removed"));
}

#[test]
fn joining_again_changes_the_options_and_one_join_at_a_time_waits() {
    let mut bench = Bench::connected();
    let mut first = bench.join("r", JoinOptions::default());
    let mut second = bench.join("r", JoinOptions::default().presence());
    let sent = bench.sent();
    assert_eq!(sent.len(), 1);
    bench.ack(&sent[0], json!({}));
    let sent = bench.sent();
    assert_eq!(sent[0]["payload"], json!({"presence": true}));
    bench.ack(&sent[0], json!({}));
    assert_eq!(
        (first.try_recv().unwrap(), second.try_recv().unwrap()),
        (Ok(None), Ok(None))
    );
}

#[test]
fn close_keeps_the_rooms_that_were_joined_and_no_others() {
    let mut bench = Bench::member("r", JoinOptions::default());
    let first_join = bench.join("other", JoinOptions::default());
    bench.command(Command::Close(oneshot::channel().0));
    assert_eq!(code(first_join), "closed");
    bench.effects();
    bench.command(Command::Connect);
    bench.welcome(json!({}));
    let sent = bench.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["room"], "r");
    assert_eq!(sent[0]["payload"]["since"]["offset"], 5);
}

#[test]
fn users_of_a_room_are_merged_into_one_list() {
    let mut bench = Bench::member("r", JoinOptions::default().presence());
    let names = |bench: &Bench| {
        let presence = bench.core.rooms.presence("r");
        let names = |members: &std::collections::BTreeMap<String, _>| {
            members.keys().cloned().collect::<Vec<_>>()
        };
        (presence.total, presence.members.as_deref().map(names))
    };
    let user = |name: &str| json!({"userId": name, "connections": 1});
    let list = |list: &[&str]| {
        Some(
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
    };
    bench.receive(
        "presence",
        json!({"room": "r", "total": 2, "members": [user("b"), user("a")]}),
    );
    assert_eq!(names(&bench), (2, list(&["a", "b"])));
    bench.receive(
        "presence",
        json!({"room": "r", "total": 2, "joined": [user("c")], "left": ["a"]}),
    );
    assert_eq!(names(&bench), (2, list(&["b", "c"])));
    bench.reconnect();
    assert_eq!(names(&bench), (2, list(&["b", "c"])));
    bench.receive("presence", json!({"room": "r", "total": 9}));
    assert_eq!(names(&bench), (9, None));
}
