//! Formats the answers of servers for people.

use std::fmt::Write;

use serde_json::Value;

use super::{REFUSED, UNAUTHORIZED};

/// The columns of the list of versions.
const COLUMNS: [&str; 11] = [
    "PLUGIN", "VERSION", "SEMVER", "STATE", "SINCE", "BY", "CALLS", "FAILED", "P50", "P99",
    "MEMORY",
];

/// Returns a table of all versions of all plugins, followed by notes about problems and held versions.
pub(super) fn list(answer: &Value) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    let mut notes = String::new();
    for plugin in elements(&answer["plugins"]) {
        let name = text(&plugin["name"]);
        let versions = elements(&plugin["versions"]);
        if versions.is_empty() {
            let mut row = COLUMNS.map(|_| String::new());
            row[0] = name.to_owned();
            row[3] = "none".to_owned();
            rows.push(row);
        }
        for (index, version) in versions.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            rows.push(row(name, version));
        }
        // Writing to a String cannot fail.
        if let Some(reason) = plugin["not_kept"].as_str() {
            let _ = writeln!(notes, "{name}: not kept for a restart: {reason}");
        }
        if plugin["held"] == true {
            let _ = writeln!(
                notes,
                "{name}: pushed or rolled back to; its file is ignored until it changes"
            );
        }
        for version in versions {
            if let Some(reason) = version["rolled_back_because"].as_str() {
                let version = text(&version["version"]);
                let _ = writeln!(notes, "{name} {version} (rolled back): {reason}");
            }
            if let Some(message) = version["last_error"]["message"].as_str() {
                let state = text(&version["state"]);
                let version = text(&version["version"]);
                let _ = writeln!(notes, "{name} {version} ({state}): {message}");
            }
        }
    }
    let table = aligned(&rows);
    if notes.is_empty() {
        table
    } else {
        format!("{table}\n{notes}")
    }
}

fn row(name: &str, version: &Value) -> [String; COLUMNS.len()] {
    [
        name.to_owned(),
        text(&version["version"]).to_owned(),
        text(&version["semver"]).to_owned(),
        text(&version["state"]).to_owned(),
        // Truncated to the second.
        text(&version["since"])
            .split('.')
            .next()
            .unwrap_or_default()
            .to_owned(),
        text(&version["trigger"]).to_owned(),
        version["calls"].to_string(),
        version["failures"].to_string(),
        milliseconds(&version["p50_ms"]),
        milliseconds(&version["p99_ms"]),
        mebibytes(&version["memory_bytes"]),
    ]
}

fn aligned(rows: &[[String; COLUMNS.len()]]) -> String {
    let mut widths = [0; COLUMNS.len()];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        table += line.trim_end();
        table.push('\n');
    }
    table
}

/// Describes the outcome of a change.
pub(super) fn changed(answer: &Value) -> String {
    let plugin = text(&answer["plugin"]);
    if answer["outcome"] == "unchanged" {
        return format!("{plugin}: unchanged: {}\n", text(&answer["message"]));
    }
    let version = text(&answer["version"]);
    let percent = &answer["percent"];
    match text(&answer["outcome"]) {
        "canary" => {
            return format!(
                "{plugin}: version {version} is tried as a canary, on {percent} % of the users\n"
            );
        }
        "shadow" => {
            return format!(
                "{plugin}: version {version} is tried as a shadow, on copies of messages\n"
            );
        }
        _ => {}
    }
    let replaced = match answer["replaced"].as_str() {
        Some(replaced) => format!(" in the place of {replaced}"),
        None => String::new(),
    };
    let took = milliseconds(&answer["took_ms"]);
    if answer["scope"] == "cluster" {
        let nodes = elements(&answer["nodes"]);
        if answer["outcome"] == "released" {
            let listed = nodes_listed(nodes);
            return format!("{plugin}: every node follows its own file\n{listed}");
        }
        let live = nodes
            .iter()
            .filter(|node| node["outcome"] == "live")
            .count();
        let all = nodes.len();
        let listed = nodes_listed(nodes);
        return format!(
            "{plugin}: version {version} is live on {live} of {all} nodes ({took})\n{listed}"
        );
    }
    format!("{plugin}: version {version} is live{replaced} ({took})\n")
}

/// Returns a line for each node.
fn nodes_listed(nodes: &[Value]) -> String {
    let line = |node: &Value| {
        let outcome = match text(&node["outcome"]) {
            "admitted" => "would go live",
            "no_answer" => "did not answer",
            other => other,
        };
        let name = text(&node["node"]);
        match (node["message"].as_str(), &node["took_ms"]) {
            (Some(message), _) => format!("  {name}: {outcome}: {message}\n"),
            (None, Value::Null) => format!("  {name}: {outcome}\n"),
            (None, took) => format!("  {name}: {outcome} ({})\n", milliseconds(took)),
        }
    };
    nodes.iter().map(line).collect()
}

/// Explains why a call did nothing.
pub(super) fn error(status: u16, answer: &Value) -> String {
    let Some(message) = answer["error"]["message"].as_str() else {
        return format!(
            "the server answered {status}, and not as Signalbox does; is --url right?\n"
        );
    };
    if status == UNAUTHORIZED {
        return format!("{message}; it is admin.key of the server's configuration\n");
    }
    let report = &answer["report"];
    if status != REFUSED || !report.is_object() {
        let nodes = nodes_listed(elements(&report["nodes"]));
        return format!("{message}\n{nodes}");
    }
    let plugin = text(&report["plugin"]);
    let step = text(&report["step"]);
    let reason = text(&report["reason"]);
    let stays = match report["live"].as_str() {
        Some(live) => format!("version {live} stays live"),
        None => "no version of it is live".to_owned(),
    };
    format!("{plugin}: refused ({step}): {reason}\n{plugin}: {stays}\n")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn milliseconds(value: &Value) -> String {
    match value.as_f64() {
        Some(ms) if ms < 10.0 => format!("{ms:.3} ms"),
        Some(ms) => format!("{ms:.0} ms"),
        None => "-".to_owned(),
    }
}

fn mebibytes(value: &Value) -> String {
    let bytes = value.as_f64().unwrap_or_default();
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_a_table_with_the_reasons_below_it() {
        let version = |version: &str, state: &str, error: Value| {
            json!({
                "version": version, "semver": "1.2.0", "state": state, "since": "2026-11-26T16:12:01.123Z",
                "trigger": "push", "calls": 1200, "failures": 3, "p50_ms": 0.016, "p99_ms": 12.0,
                "memory_bytes": 2_621_440, "last_error": error,
            })
        };
        let error = json!({"message": "self-test failed: no"});
        let answer = json!({"plugins": [
            {"name": "chat", "held": true, "versions": [version("4fa510f267ae", "live", Value::Null), version("7fe0d21eb1dd", "failed", error)]},
            {"name": "new", "held": false, "versions": []},
        ]});
        let expected = "\
PLUGIN  VERSION       SEMVER  STATE   SINCE                BY    CALLS  FAILED  P50       P99    MEMORY
chat    4fa510f267ae  1.2.0   live    2026-11-26T16:12:01  push  1200   3       0.016 ms  12 ms  2.5 MiB
        7fe0d21eb1dd  1.2.0   failed  2026-11-26T16:12:01  push  1200   3       0.016 ms  12 ms  2.5 MiB
new                           none

chat: pushed or rolled back to; its file is ignored until it changes
chat 7fe0d21eb1dd (failed): self-test failed: no
";
        assert_eq!(list(&answer), expected);
    }

    #[test]
    fn of_a_swap_on_all_nodes_each_ones_outcome_is_shown() {
        let node = |name: &str, outcome: &str| json!({"node": name, "outcome": outcome});
        let mut refused = node("b-2", "refused");
        refused["message"] = "self-test failed: no".into();
        let mut live = node("a-1", "live");
        live["took_ms"] = 2.5.into();
        let answer = json!({
            "plugin": "chat", "scope": "cluster", "version": "4fa510f267ae", "took_ms": 250.0,
            "nodes": [live, refused.clone()],
        });
        let expected = "\
chat: version 4fa510f267ae is live on 1 of 2 nodes (250 ms)
  a-1: live (2.500 ms)
  b-2: refused: self-test failed: no
";
        assert_eq!(changed(&answer), expected);
        let nodes = [node("a-1", "admitted"), refused];
        let answer =
            json!({"error": {"message": "1 of 2 nodes refused"}, "report": {"nodes": nodes}});
        let expected = "\
1 of 2 nodes refused
  a-1: would go live
  b-2: refused: self-test failed: no
";
        assert_eq!(error(409, &answer), expected);
    }

    #[test]
    fn a_foreign_answer_is_not_taken_for_one_of_the_server() {
        assert!(error(502, &Value::Null).contains("502"));
        let closed = json!({"error": {"message": "the key is wrong"}});
        assert!(error(401, &closed).starts_with("the key is wrong; "));
    }
}
