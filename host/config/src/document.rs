//! The text of a file: parsed, and read key by key using the table of keys.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    checks,
    errors::{ConfigError, SettingPlace},
    keys::{self, Key},
    nearest::nearest,
    settings::{Section, Setting, Settings},
    values,
};

/// The contents of a text, and whether it could be parsed.
pub(super) struct Document {
    pub(super) settings: Settings,
    /// Whether it is valid TOML. If it is not, too little was recovered to decide what is missing.
    pub(super) is_toml: bool,
}

/// Reads a text; errors are added to `errors`.
pub(super) fn read(text: &str, errors: &mut Vec<ConfigError>) -> Document {
    let (root, syntax) = DeTable::parse_recoverable(text);
    let lines = Lines::new(text);
    let mut reader = Reader {
        lines: &lines,
        settings: Settings::default(),
        errors: Vec::new(),
    };
    reader.root(root.get_ref());
    let Reader {
        settings,
        errors: mut found,
        ..
    } = reader;

    let broken = syntax_errors(&lines, &syntax);
    // Errors in values that were recovered from a broken line are meaningless.
    found.retain(|error| !broken.iter().any(|other| line_of(other) == line_of(error)));
    errors.extend(found);
    let is_toml = broken.is_empty();
    errors.extend(broken);
    Document { settings, is_toml }
}

/// The errors of the parser, one per line: later ones on the same line are mostly consequences of the first.
fn syntax_errors(lines: &Lines<'_>, errors: &[toml::de::Error]) -> Vec<ConfigError> {
    let mut found: Vec<ConfigError> = Vec::new();
    for error in errors {
        let place = error
            .span()
            .map_or(SettingPlace::File, |span| lines.place(span.start));
        let error = ConfigError {
            place,
            key: String::new(),
            message: format!("not valid TOML: {}", error.message().trim_end()),
        };
        if !found.iter().any(|other| line_of(other) == line_of(&error)) {
            found.push(error);
        }
    }
    found
}

fn line_of(error: &ConfigError) -> Option<usize> {
    match error.place {
        SettingPlace::At { line, .. } => Some(line),
        _ => None,
    }
}

/// The positions at which the lines of a text start.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0)
            .chain(breaks.map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
    }

    fn place(&self, offset: usize) -> SettingPlace {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line
            .checked_sub(1)
            .and_then(|index| self.starts.get(index))
            .copied()
            .unwrap_or(0);
        let before = self
            .text
            .get(start..offset.min(self.text.len()))
            .unwrap_or_default();
        SettingPlace::At {
            line,
            column: before.chars().count() + 1,
        }
    }
}

struct Reader<'t> {
    lines: &'t Lines<'t>,
    settings: Settings,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn root(&mut self, root: &DeTable<'_>) {
        for (name, value) in root {
            let found = keys::SECTIONS
                .iter()
                .find(|section| **section == name.get_ref().as_ref());
            match (found, value.get_ref()) {
                (Some(&"plugins"), DeValue::Array(elements)) => {
                    self.settings.plugins = self.list("plugins", elements);
                }
                (Some(&"rooms"), DeValue::Array(elements)) => {
                    self.settings.rooms = self.list("rooms", elements);
                }
                (Some(&"webhooks"), DeValue::Array(elements)) => {
                    self.settings.webhooks = self.list("webhooks", elements);
                }
                (Some(list), _) if keys::is_list(list) => self.error(
                    value.span().start,
                    list,
                    format!("expected a list of {list}; write [[{list}]], with two brackets, above each of them"),
                ),
                (Some(section), DeValue::Table(table)) => {
                    let place = self.lines.place(name.span().start);
                    let mut read = Section::new(section, (*section).to_owned(), place);
                    self.table(&mut read, "", table);
                    self.settings.sections.insert(section, read);
                }
                (Some(section), other) => self.error(
                    value.span().start,
                    section,
                    format!("found {}, expected a table; write [{section}]", values::type_name(other)),
                ),
                (None, _) => self.unknown_section(name),
            }
        }
    }

    /// Reads a list of tables, such as `[[plugins]]`.
    fn list(&mut self, list: &'static str, elements: &[Spanned<DeValue<'_>>]) -> Vec<Section> {
        let mut sections = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let position = format!("{list}[{index}]");
            let DeValue::Table(table) = element.get_ref() else {
                self.error(
                    element.span().start,
                    &position,
                    format!("expected a table; write [[{list}]]"),
                );
                continue;
            };
            let path = match plugin_name(table) {
                Some(name) if list == "plugins" => format!("plugins.{name}"),
                _ => position,
            };
            let mut read = Section::new(list, path, self.lines.place(element.span().start));
            self.table(&mut read, "", table);
            sections.push(read);
        }
        sections
    }

    /// Reads a section, or a table in it; the names of the table's keys then begin with `outer`, such as `history.`.
    fn table(&mut self, section: &mut Section, outer: &str, table: &DeTable<'_>) {
        for (written, value) in table {
            let name = format!("{outer}{}", written.get_ref());
            let inner = format!("{name}.");
            let known_inside = keys::names_within(section.table, &inner);
            // A dot in a name was in quotes there, and separates no names.
            let key = keys::find(section.table, &name).filter(|_| !written.get_ref().contains('.'));
            match (key, value.get_ref()) {
                (Some(key), _) => self.value(section, key, value),
                (None, _) if known_inside.is_empty() => self.error(
                    written.span().start,
                    &format!("{}.{name}", section.path),
                    unknown_key(section.table, outer, written.get_ref()),
                ),
                (None, DeValue::Table(table)) => self.table(section, &inner, table),
                (None, other) => self.error(
                    value.span().start,
                    &format!("{}.{name}", section.path),
                    format!(
                        "found {}, expected a table with {}",
                        values::type_name(other),
                        known_inside.join(" and ")
                    ),
                ),
            }
        }
    }

    fn value(&mut self, section: &mut Section, key: &'static Key, value: &Spanned<DeValue<'_>>) {
        let read = values::from_toml(key, value);
        let place = self.lines.place(value.span().start);
        let value = read.map_err(|problems| {
            for problem in problems {
                let full = format!("{}.{}{}", section.path, key.name, problem.within);
                self.error(problem.span.start, &full, problem.message);
            }
        });
        section.values.insert(
            key.name,
            Setting {
                value: value.ok(),
                place,
            },
        );
    }

    fn unknown_section(&mut self, name: &Spanned<std::borrow::Cow<'_, str>>) {
        let text = name.get_ref();
        let message = if let Some(near) = nearest(text, &keys::SECTIONS) {
            format!("unknown section; did you mean {near}")
        } else if let Some(key) = keys::KEYS.iter().find(|key| key.name == text) {
            format!(
                "unknown key outside of a section; write it below {}",
                key.heading()
            )
        } else {
            format!(
                "unknown section; the known ones are {}",
                keys::SECTIONS.join(", ")
            )
        };
        self.error(name.span().start, text, message);
    }

    fn error(&mut self, offset: usize, key: &str, message: impl Into<String>) {
        self.errors.push(ConfigError {
            place: self.lines.place(offset),
            key: key.to_owned(),
            message: message.into(),
        });
    }
}

/// The name of a plugin, if it is valid.
fn plugin_name<'t>(table: &'t DeTable<'_>) -> Option<&'t str> {
    let name = table.get("name")?.get_ref().as_str()?;
    checks::plugin_name(name).is_ok().then_some(name)
}

/// The error of an unknown `name` in a section, or in the table `outer` of it.
fn unknown_key(section: &str, outer: &str, name: &str) -> String {
    if keys::find(section, name).is_some() && name.contains('.') {
        return "unknown key; write it without quotes".to_owned();
    }
    let further_in = format!(".{name}");
    if let Some(inner) = keys::names(section).find(|known| known.ends_with(&further_in)) {
        return format!("unknown key here; did you mean {inner}");
    }
    if let Some(key) = keys::KEYS.iter().find(|key| key.name == name) {
        return format!("unknown key here; it belongs in {}", key.heading());
    }
    let known = keys::names_within(section, outer);
    if let Some(near) = nearest(name, &known) {
        return format!("unknown key; did you mean {near}");
    }
    format!("unknown key; the known ones are {}", known.join(", "))
}
