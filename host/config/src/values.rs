//! One value: from TOML or from the text of a variable, checked against its kind.

use std::{net::SocketAddr, time::Duration};

use serde_json::value::RawValue;
use signalbox_protocol as protocol;
use toml::{Spanned, de::DeValue};

use super::{
    checks::{self, Check},
    errors::ValueFault,
    http, json,
    keys::{Key, ValueKind},
    units::{self, UnitError},
};

/// Replaces a secret.
pub(super) const MASK: &str = "****";

/// A valid value of a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ConfigValue {
    Bool(bool),
    Count(u64),
    Time(Duration),
    Bytes(u64),
    Ratio(f64),
    Address(SocketAddr),
    /// Also used for a choice.
    Text(String),
    Texts(Vec<String>),
    /// A JSON object.
    Json(String),
}

/// Reads the value of a key from a file.
pub(super) fn from_toml(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
) -> Result<ConfigValue, Vec<ValueFault>> {
    let problem = |message| {
        vec![ValueFault {
            span: value.span(),
            within: String::new(),
            message,
        }]
    };
    match (key.kind, value.get_ref()) {
        (ValueKind::Texts(_), DeValue::Array(elements)) => texts(key, elements),
        (ValueKind::Table, DeValue::Table(table)) => json::object(table).map(ConfigValue::Json),
        (ValueKind::Bool, DeValue::Boolean(flag)) => Ok(ConfigValue::Bool(*flag)),
        (ValueKind::Count(..) | ValueKind::Bytes(..), DeValue::Integer(integer)) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix());
            ranged(key, number.ok(), &integer.to_string()).map_err(problem)
        }
        (ValueKind::Ratio, DeValue::Float(number)) => {
            from_text(key, number.as_str()).map_err(problem)
        }
        (ValueKind::Ratio, DeValue::Integer(number)) => {
            from_text(key, number.as_str()).map_err(problem)
        }
        (
            ValueKind::Bool
            | ValueKind::Count(..)
            | ValueKind::Ratio
            | ValueKind::Texts(_)
            | ValueKind::Table,
            other,
        ) => Err(problem(wrong_type(key, other))),
        (_, DeValue::String(text)) => from_text(key, text).map_err(problem),
        (_, other) => Err(problem(wrong_type(key, other))),
    }
}

/// Reads the value of a key from the text of an environment variable: lists are separated by commas, a table is JSON.
pub(super) fn from_text(key: &Key, text: &str) -> Result<ConfigValue, String> {
    let refuse = |reason: &str| Err(refusal(key, text, reason));
    if key.secret {
        checks::secret(text).map_err(|reason| refused_by_check(key, text, &reason))?;
    }
    match key.kind {
        ValueKind::Bool => match text {
            "true" => Ok(ConfigValue::Bool(true)),
            "false" => Ok(ConfigValue::Bool(false)),
            _ => refuse(""),
        },
        ValueKind::Count(..) => match text.trim().parse::<i128>() {
            Ok(number) => ranged(key, Some(number), text),
            Err(_) => refuse(""),
        },
        ValueKind::Bytes(..) => match units::parse_bytes(text) {
            Ok(bytes) => ranged(key, Some(i128::from(bytes)), text),
            Err(error) => refuse(&format!(", which {error}")),
        },
        ValueKind::Ratio => match text.trim().parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ConfigValue::Ratio(ratio)),
            Ok(_) => refuse(", which is out of range"),
            Err(_) => refuse(""),
        },
        ValueKind::Time(min, max) => match units::parse_duration(text) {
            Ok(time) if (min..=max).contains(&time) => Ok(ConfigValue::Time(time)),
            Ok(_) => refuse(", which is out of range"),
            Err(error @ UnitError::NoUnit) => refuse(&format!(
                ", which {error}; write \"{}s\" for seconds",
                text.trim()
            )),
            Err(error) => refuse(&format!(", which {error}")),
        },
        ValueKind::Choice(words) if words.contains(&text) => Ok(ConfigValue::Text(text.to_owned())),
        ValueKind::Choice(_) => refuse(""),
        ValueKind::Address => text
            .parse()
            .map(ConfigValue::Address)
            .or_else(|_| refuse(&http::address_hint(text))),
        ValueKind::Text(check) => match check(text) {
            Ok(()) => Ok(ConfigValue::Text(text.to_owned())),
            Err(reason) => Err(refused_by_check(key, text, &reason)),
        },
        ValueKind::Texts(check) => {
            let texts = text
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty());
            texts
                .map(|text| match check_one(key, check, text) {
                    Ok(()) => Ok(text.to_owned()),
                    Err(reason) => Err(refused_by_check(key, text, &reason)),
                })
                .collect::<Result<_, _>>()
                .map(ConfigValue::Texts)
        }
        ValueKind::Table => match serde_json::from_str::<&RawValue>(text) {
            Ok(json)
                if json.get().starts_with('{') && protocol::json::check(json.get()).is_ok() =>
            {
                Ok(ConfigValue::Json(json.get().to_owned()))
            }
            _ => refuse(""),
        },
    }
}

/// Describes the valid values of a key, for errors and for the reference: "a size from 128B to 16MiB such as "1MiB"".
pub(super) fn expected(key: &Key) -> String {
    let example = key.example;
    match key.kind {
        ValueKind::Bool => "true or false".to_owned(),
        ValueKind::Count(min, max) => format!("a whole number from {min} to {max}"),
        ValueKind::Bytes(min, max) => {
            let (min, max) = (units::format_bytes(min), units::format_bytes(max));
            format!("a size from {min} to {max} such as \"{example}\"")
        }
        ValueKind::Time(min, max) => {
            let (min, max) = (units::format_duration(min), units::format_duration(max));
            format!("a duration from {min} to {max} such as \"{example}\"")
        }
        ValueKind::Ratio => format!("a number from 0 to 1 such as {example}"),
        ValueKind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            words.join(" or ")
        }
        ValueKind::Address => "an IP address with a port such as \"127.0.0.1:8080\"".to_owned(),
        ValueKind::Text(_) => "a string".to_owned(),
        ValueKind::Texts(_) => "a list of strings".to_owned(),
        ValueKind::Table => "a table".to_owned(),
    }
}

fn texts(key: &Key, elements: &[Spanned<DeValue<'_>>]) -> Result<ConfigValue, Vec<ValueFault>> {
    let ValueKind::Texts(check) = key.kind else {
        return Ok(ConfigValue::Texts(Vec::new()));
    };
    let mut texts = Vec::with_capacity(elements.len());
    let mut problems = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        let message = match element.get_ref() {
            DeValue::String(text) if text.is_empty() => {
                "is an empty string; write a value or remove the element".to_owned()
            }
            DeValue::String(text) => match check_one(key, check, text) {
                Ok(()) => {
                    texts.push(text.to_string());
                    continue;
                }
                Err(reason) => refused_by_check(key, text, &reason),
            },
            other => format!("found {}, expected a string", describe(key, other)),
        };
        problems.push(ValueFault {
            span: element.span(),
            within: format!("[{index}]"),
            message,
        });
    }
    if problems.is_empty() {
        Ok(ConfigValue::Texts(texts))
    } else {
        Err(problems)
    }
}

/// One element of a list.
fn check_one(key: &Key, check: Check, text: &str) -> Result<(), String> {
    if key.secret {
        checks::secret(text)?;
    }
    check(text)
}

/// Checks a number against the bounds of its key; `None` means that it does not fit into 128 bits.
fn ranged(key: &Key, number: Option<i128>, written: &str) -> Result<ConfigValue, String> {
    let refuse = || Err(refusal(key, written, ", which is out of range"));
    let Some(number) = number.and_then(|number| u64::try_from(number).ok()) else {
        return refuse();
    };
    match key.kind {
        ValueKind::Count(min, max) if (min..=max).contains(&number) => {
            Ok(ConfigValue::Count(number))
        }
        ValueKind::Bytes(min, max) if (min..=max).contains(&number) => {
            Ok(ConfigValue::Bytes(number))
        }
        _ => refuse(),
    }
}

fn wrong_type(key: &Key, value: &DeValue<'_>) -> String {
    let advice = match (key.kind, value) {
        (ValueKind::Time(..), DeValue::Integer(number)) => {
            format!("; write \"{number}s\" for seconds, with quotes and unit")
        }
        (ValueKind::Bool | ValueKind::Count(..) | ValueKind::Ratio, DeValue::String(text))
            if from_text(key, text).is_ok() =>
        {
            "; write it without quotes".to_owned()
        }
        (ValueKind::Texts(_), DeValue::String(_)) => "; put it in brackets".to_owned(),
        _ => String::new(),
    };
    format!(
        "found {}, expected {}{advice}",
        describe(key, value),
        expected(key)
    )
}

/// Describes a value for an error: its type, and its text if that is short and not a secret.
fn describe(key: &Key, value: &DeValue<'_>) -> String {
    match value {
        other if may_hold_a_secret(key) => type_name(other).to_owned(),
        DeValue::String(text) => format!("the string {}", quoted(text)),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the float {number}"),
        DeValue::Boolean(flag) => format!("{flag}"),
        other => type_name(other).to_owned(),
    }
}

/// The type of a value with its article.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn refusal(key: &Key, text: &str, reason: &str) -> String {
    let found = if may_hold_a_secret(key) {
        "a value".to_owned()
    } else {
        quoted(text)
    };
    format!("found {found}{reason}; expected {}", expected(key))
}

fn refused_by_check(key: &Key, text: &str, reason: &str) -> String {
    if may_hold_a_secret(key) {
        format!("the value {reason}")
    } else {
        format!("{} {reason}", quoted(text))
    }
}

/// Whether the value of a key must not appear in an error. The configuration of plugins may contain anything.
fn may_hold_a_secret(key: &Key) -> bool {
    key.secret || matches!(key.kind, ValueKind::Table)
}

/// A text in quotes, on one line, truncated if it is long, without the user and password of an address.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let masked = text.rsplit_once('@').map(|(login, host)| {
        let scheme = login.split_once("://").map_or("", |(scheme, _)| scheme);
        let separator = if scheme.is_empty() { "" } else { "://" };
        format!("{scheme}{separator}{MASK}@{host}")
    });
    let text = masked.as_deref().unwrap_or(text);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
