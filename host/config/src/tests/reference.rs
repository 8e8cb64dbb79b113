//! The reference manual.

use super::*;

/// A default as written in a file.
fn toml_literal(key: &Key) -> String {
    match key.kind {
        ValueKind::Bool | ValueKind::Count(..) | ValueKind::Ratio | ValueKind::Table => {
            key.default.to_owned()
        }
        ValueKind::Texts(_) if key.default.is_empty() => "[]".to_owned(),
        _ => format!("\"{}\"", key.default),
    }
}

fn reference_table() -> String {
    let mut table = String::from(
        "| key | value | default | change | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for key in &KEYS {
        let is_required = match key.section {
            "plugins" => ["name", "path", "events"].contains(&key.name),
            "rooms" => key.name == "match",
            "webhooks" => ["url", "events"].contains(&key.name),
            _ => false,
        };
        let default = if is_required || !key.has_default() {
            "–".to_owned()
        } else {
            format!("`{}`", toml_literal(key))
        };
        let change = match key.change {
            ChangeEffect::Live => "live",
            ChangeEffect::Restart => "restart",
        };
        let (name, value) = (key.full_name(), values::expected(key));
        table += &format!(
            "| `{name}` | {value} | {default} | {change} | {} |\n",
            key.meaning
        );
    }
    table
}

#[test]
fn the_reference_holds_the_table_of_keys() {
    const BEGIN: &str =
        "<!-- keys: written by the tests of the configuration with UPDATE_SNAPSHOTS=1 -->\n";
    const END: &str = "<!-- end of keys -->";
    let path = at_the_top("docs/configuration.md");
    let text = read(&path);
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    assert_snapshot(
        &path,
        &format!("{before}{BEGIN}{}{END}{after}", reference_table()),
    );
}

#[test]
fn the_reference_names_every_old_and_reserved_variable() {
    let text = read(&at_the_top("docs/configuration.md"));
    let old = keys::OLD_VARIABLES.map(|(name, _)| name);
    for name in old.iter().chain(&keys::RESERVED_VARIABLES) {
        assert!(text.contains(&format!("`{name}`")), "{name} is missing");
    }
}
