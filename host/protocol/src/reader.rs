//! Reads the fields of a message, in the fastest way that fits it.

use std::fmt;

use super::{
    fields::Fields,
    json::{self, JsonFault},
    scan,
};

/// Why a text has no fields.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It breaks a rule for JSON.
    Rule(JsonFault),
    /// It is not a JSON object; the reason is for people.
    Syntax(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(fault) => fault.fmt(f),
            Self::Syntax(reason) => reason.fmt(f),
        }
    }
}

/// The fields of the JSON object `json`, which follows the rules for JSON.
///
/// # Errors
/// Returns [`Unreadable`] if it breaks a rule or is not an object.
pub(super) fn fields(json: &str) -> Result<Fields<'_>, Unreadable> {
    if let Some(fields) = scan::fields(json) {
        return Ok(fields);
    }
    json::check_rules(json).map_err(Unreadable::Rule)?;
    Fields::parse(json).map_err(Unreadable::Syntax)
}
