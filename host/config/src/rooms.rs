//! `[[rooms]]` and `[users]`: each rule, and conflicts between them.

use super::{
    ConfigError, HistoryRule, JoinRule, RoomRule, RoomsConfig, SendRule, UsersConfig,
    settings::{self, Section},
};

/// Assembles the rules. `auth` is the section with the mode in which clients are identified.
pub(super) fn assemble(
    sections: &[Section],
    auth: &Section,
    errors: &mut Vec<ConfigError>,
) -> RoomsConfig {
    settings::refuse_repeated(sections, "match", "rule", errors);
    if auth.are_right(&["mode"]) && auth.text("mode") == "none" {
        refuse_tokens(sections, errors);
    }
    let rules = sections
        .iter()
        .map(|section| (section.text("match"), rule(section, errors)));
    RoomsConfig::new(rules)
}

/// Assembles `[users]`.
pub(super) fn users(section: &Section, errors: &mut Vec<ConfigError>) -> UsersConfig {
    UsersConfig {
        history: history(section, errors),
    }
}

/// Without keys no token can be verified.
fn refuse_tokens(sections: &[Section], errors: &mut Vec<ConfigError>) {
    for section in sections {
        if section.are_right(&["join"]) && section.text("join") == "token" {
            errors.push(section.error(
                &["join"],
                "\"token\" needs keys that verify tokens: set auth.mode = \"jwt\" with a key, or choose another value",
            ));
        }
    }
}

fn rule(section: &Section, errors: &mut Vec<ConfigError>) -> RoomRule {
    section.require("match", "\"chat:*\"", errors);
    RoomRule {
        history: history(section, errors),
        join: match section.text("join").as_str() {
            "claim" => JoinRule::Claim,
            "token" => JoinRule::Token,
            "backend" => JoinRule::Backend,
            _ => JoinRule::Open,
        },
        send: match section.text("send").as_str() {
            "backend" => SendRule::Backend,
            _ => SendRule::Members,
        },
        presence: section.bool("presence"),
        members_max: members_max(section, errors),
    }
}

/// Members are counted only in rooms with presence.
fn members_max(section: &Section, errors: &mut Vec<ConfigError>) -> usize {
    let max = section.count("members_max") as usize;
    let is_known = section.are_right(&["presence", "members_max"]);
    if is_known && max > 0 && !section.bool("presence") {
        errors.push(section.error(
            &["members_max"],
            "is for rooms whose members are counted; set presence = true, or remove it",
        ));
    }
    max
}

fn history(section: &Section, errors: &mut Vec<ConfigError>) -> Option<HistoryRule> {
    const SIZE: &str = "history.size";
    const TIME: &str = "history.time";
    for (missing, other) in [(SIZE, TIME), (TIME, SIZE)] {
        if section.has(other) && !section.has(missing) {
            let message = format!(
                "is required with {other}; write for example history = {{ size = 100, time = \"5m\" }}"
            );
            errors.push(ConfigError {
                key: format!("{}.{missing}", section.path),
                ..section.error(&[other], message)
            });
        }
    }
    section.have_values(&[SIZE, TIME]).then(|| HistoryRule {
        size: section.count(SIZE) as usize,
        time: section.time(TIME),
    })
}
