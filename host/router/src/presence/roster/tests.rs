use signalbox_protocol::MemberInfo;

use super::*;

const LIMITS: RosterLimits = RosterLimits {
    grace: Duration::from_secs(5),
    users: 20,
    bytes: 10_000,
};

const SECOND: Duration = Duration::from_secs(1);

fn member(user: &str) -> MemberReport {
    MemberReport {
        user: user.into(),
        connections: 1,
        since_ms: 7,
        info: None,
    }
}

fn members(users: &str) -> Vec<MemberReport> {
    users.split_whitespace().map(member).collect()
}

/// As many users as `count`.
fn many(count: usize) -> Vec<MemberReport> {
    let users = (0..count).map(|number| member(&format!("u{number:03}")));
    users.collect()
}

fn users(joined: &str, left: &str) -> RosterChange {
    RosterChange::Users {
        joined: members(joined),
        left: left.split_whitespace().map(Arc::from).collect(),
    }
}

/// A room, and the time.
struct Room {
    roster: Roster,
    at: Instant,
}

impl Room {
    /// A room whose members know of `now`.
    fn with(now: &[MemberReport]) -> Self {
        let mut room = Self {
            roster: Roster::default(),
            at: Instant::now(),
        };
        room.sees(now);
        room
    }

    fn sees(&mut self, now: &[MemberReport]) -> RosterChange {
        let (roster, change) = diff(&self.roster, now, self.at, LIMITS);
        self.roster = roster;
        change
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.at += time;
        self
    }

    fn snapshot(&self) -> serde_json::Value {
        let frame = self.roster.snapshot("r");
        let mut frame: serde_json::Value = serde_json::from_str(frame.as_str()).unwrap();
        frame["payload"].take()
    }
}

#[test]
fn joins_are_reported_at_once_and_leaves_after_the_grace() {
    // The users that are there at each second, and the report that the members get.
    let steps = [
        ("ann", RosterChange::Nothing),
        ("ann bob", users("bob", "")),
        ("ann bob", RosterChange::Nothing),
        ("ann", RosterChange::Nothing),
        ("ann eve", users("eve", "")),
        ("ann eve", RosterChange::Nothing),
        ("eve", RosterChange::Nothing),
        ("eve", RosterChange::Nothing),
        // Five seconds after the fourth step.
        ("eve dan", users("dan", "bob")),
        // Back before the grace is over.
        ("ann eve dan", RosterChange::Nothing),
        ("", RosterChange::Nothing),
        ("eve", RosterChange::Nothing),
    ];
    let mut room = Room::with(&members("ann"));
    for (step, (now, expected)) in steps.into_iter().enumerate() {
        let change = room.after(SECOND).sees(&members(now));
        assert_eq!(change, expected, "step {step}: {now}");
    }
    let change = room.after(LIMITS.grace).sees(&members("eve"));
    assert_eq!(change, users("", "ann dan"));
}

#[test]
fn a_user_who_leaves_repeatedly_gets_the_whole_grace_each_time() {
    let mut room = Room::with(&members("ann bob"));
    for now in ["ann", "ann bob"].repeat(20) {
        let change = room.after(SECOND * 4).sees(&members(now));
        assert_eq!(change, RosterChange::Nothing, "{now}");
    }
}

#[test]
fn the_grace_ends_with_that_of_the_first_missing_user() {
    let mut room = Room::with(&members("ann bob eve"));
    assert_eq!(room.roster.grace_ends(LIMITS.grace), None);
    room.after(SECOND).sees(&members("ann bob"));
    let first = room.at + LIMITS.grace;
    room.after(SECOND).sees(&members("ann"));
    assert_eq!(room.roster.grace_ends(LIMITS.grace), Some(first));
}

#[test]
fn a_missing_user_counts_until_the_grace_is_over() {
    let mut room = Room::with(&members("ann bob"));
    room.sees(&members("ann"));
    assert_eq!(room.snapshot()["total"], 2);
    assert_eq!(room.snapshot()["members"][1]["userId"], "bob");
    room.after(LIMITS.grace).sees(&members("ann"));
    assert_eq!(room.snapshot()["total"], 1);
}

#[test]
fn without_a_grace_a_missing_user_has_left() {
    let known = Room::with(&members("ann bob"));
    let limits = RosterLimits {
        grace: Duration::ZERO,
        ..LIMITS
    };
    let (_, change) = diff(&known.roster, &members("ann"), known.at, limits);
    assert_eq!(change, users("", "bob"));
}

#[test]
fn another_number_of_connections_is_known_and_not_reported() {
    let mut room = Room::with(&members("ann"));
    let mut ann = member("ann");
    ann.connections = 2;
    ann.info = MemberInfo::parse(r#"{"name":"Ann"}"#);
    assert_eq!(room.sees(&[ann]), RosterChange::Nothing);
    let member = &room.snapshot()["members"][0];
    assert_eq!(
        (&member["connections"], &member["info"]["name"]),
        (&2.into(), &"Ann".into())
    );
}

#[test]
fn more_users_than_the_limit_are_only_counted_until_they_are_a_tenth_fewer() {
    let mut room = Room::with(&many(20));
    for (count, expected) in [
        (21, RosterChange::Total),
        (21, RosterChange::Nothing),
        (25, RosterChange::Total),
        (20, RosterChange::Total),
        (19, RosterChange::Total),
    ] {
        assert_eq!(room.sees(&many(count)), expected, "{count}");
        assert_eq!(room.roster, Roster::Counted(count));
        assert_eq!(
            room.snapshot(),
            serde_json::json!({"room": "r", "total": count})
        );
    }
    assert_eq!(room.sees(&many(18)), RosterChange::All);
    assert_eq!(room.snapshot()["members"].as_array().unwrap().len(), 18);
    // Nobody is missing in the new list.
    assert_eq!(room.roster.grace_ends(LIMITS.grace), None);
}

#[test]
fn missing_users_count_for_the_limit_of_the_list() {
    let mut room = Room::with(&many(20));
    let mut others = many(20);
    others[0] = member("other");
    assert_eq!(room.sees(&others), RosterChange::Total);
    assert_eq!(room.roster, Roster::Counted(20));
}

#[test]
fn a_list_of_too_many_bytes_is_only_counted() {
    let mut ann = member("ann");
    ann.info = MemberInfo::parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000)));
    let mut room = Room::with(&[]);
    let large = |count| -> Vec<MemberReport> {
        let users = many(count).into_iter();
        users
            .map(|user| MemberReport {
                info: ann.info.clone(),
                ..user
            })
            .collect()
    };
    assert!(matches!(room.sees(&large(9)), RosterChange::Users { .. }));
    let frame = room.roster.snapshot("r");
    assert!(frame.len() <= LIMITS.bytes, "{}", frame.len());
    assert_eq!(room.sees(&large(10)), RosterChange::Total);
    assert_eq!(room.sees(&large(9)), RosterChange::Total);
    assert_eq!(room.sees(&large(8)), RosterChange::All);
}

#[test]
fn a_report_names_joined_and_left_users() {
    let room = Room::with(&members("ann eve"));
    let report = room.roster.report("r", &users("eve", "bob")).unwrap();
    assert_eq!(
        report.as_str(),
        r#"{"type":"presence","payload":{"room":"r","total":2,"joined":[{"userId":"eve","connections":1}],"left":["bob"]}}"#
    );
    assert_eq!(room.roster.report("r", &RosterChange::Nothing), None);
    let total = room.roster.report("r", &RosterChange::Total).unwrap();
    assert!(!total.as_str().contains("members"), "{}", total.as_str());
}
