//! The text of a message: where it is in a payload, what it may be, and how it is cleaned.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use signalbox_plugin::Rejection;

/// Longest blocked word, in characters.
const WORD_CHARS_MAX: usize = 64;

/// A payload, and the text in it, if it has one: a string, or the `text` of an object.
pub(crate) struct Payload<'p> {
    json: &'p str,
    /// Where the text's JSON stands, and what it says.
    text: Option<(&'p str, Cow<'p, str>)>,
}

impl<'p> Payload<'p> {
    /// Never fails: JSON of another shape is a payload without a text.
    pub(crate) fn read(json: &'p str) -> Self {
        let raw = match json.trim_start().as_bytes().first() {
            Some(b'"') => Some(json.trim()),
            Some(b'{') => serde_json::from_str::<TextField<'p>>(json)
                .ok()
                .and_then(|field| field.0)
                .map(RawValue::get),
            _ => None,
        };
        let text = raw.and_then(|raw| Some((raw, string(raw)?)));
        Self { json, text }
    }

    /// One whose text, if it has one, is nobody's business.
    pub(crate) fn unread(json: &'p str) -> Self {
        Self { json, text: None }
    }

    /// What it says.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_ref().map(|(_, text)| &**text)
    }

    /// The payload with another text; every other byte stays.
    pub(crate) fn with_text(&self, text: &str) -> String {
        let Some((old, _)) = &self.text else {
            return self.json.to_owned();
        };
        let start = old.as_ptr() as usize - self.json.as_ptr() as usize;
        // A str always serializes.
        let new = serde_json::to_string(text).unwrap_or_default();
        [&self.json[..start], &new, &self.json[start + old.len()..]].concat()
    }
}

/// The JSON string `raw`; borrowed where it holds no escape.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// The last field called `text` of an object.
struct TextField<'p>(Option<&'p RawValue>);

impl<'de> Deserialize<'de> for TextField<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = TextField<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut text = None;
                while let Some(IsText(is_text)) = map.next_key()? {
                    if is_text {
                        text = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(TextField(text))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Whether the name of a field is `text`. Its own type, because a name as a string would be allocated.
struct IsText(bool);

impl<'de> Deserialize<'de> for IsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = IsText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E>(self, name: &str) -> Result<IsText, E> {
                Ok(IsText(name == "text"))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Checks and cleans texts.
pub(crate) struct Cleaner {
    chars_max: usize,
    blocked: HashSet<String>,
    refuse_blocked: bool,
}

impl Cleaner {
    pub(crate) fn new(chars_max: usize, blocked: &[String], refuse_blocked: bool) -> Self {
        Self {
            chars_max,
            blocked: blocked.iter().map(|word| word.to_lowercase()).collect(),
            refuse_blocked,
        }
    }

    /// Whether the text may be sent.
    pub(crate) fn check(&self, text: &str) -> Result<(), Rejection> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(Rejection::new("blank", "the text is blank"));
        }
        // A text has at most as many characters as bytes.
        if trimmed.len() > self.chars_max && trimmed.chars().count() > self.chars_max {
            let reason = format!("the text is longer than {} characters", self.chars_max);
            return Err(Rejection::new("too_long", reason));
        }
        if self.refuse_blocked && words(text).any(|(_, word)| self.is_blocked(word)) {
            return Err(Rejection::new(
                "blocked_word",
                "the text contains a blocked word",
            ));
        }
        Ok(())
    }

    /// The cleaned text; none where it is clean.
    pub(crate) fn clean(&self, text: &str) -> Option<String> {
        let trimmed = text.trim();
        let mut cleaned = Cow::Borrowed(trimmed);
        if !is_plain(trimmed) && trimmed.chars().any(is_unwanted) {
            let kept: String = trimmed.chars().filter(|c| !is_unwanted(*c)).collect();
            cleaned = Cow::Owned(kept.trim().to_owned());
        }
        if !self.blocked.is_empty()
            && !self.refuse_blocked
            && words(&cleaned).any(|(_, word)| self.is_blocked(word))
        {
            cleaned = Cow::Owned(self.masked(&cleaned));
        }
        match cleaned {
            Cow::Borrowed(same) if same.len() == text.len() => None,
            cleaned => Some(cleaned.into_owned()),
        }
    }

    fn masked(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut written = 0;
        for (start, word) in words(text).filter(|(_, word)| self.is_blocked(word)) {
            out.push_str(&text[written..start]);
            out.extend(word.chars().map(|_| '*'));
            written = start + word.len();
        }
        out.push_str(&text[written..]);
        out
    }

    fn is_blocked(&self, word: &str) -> bool {
        !self.blocked.is_empty() && self.blocked.contains(&word.to_lowercase())
    }
}

/// A control character other than those that lay a text out.
fn is_unwanted(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// Whether the text is printable ASCII, which most texts are and which is quick to see.
fn is_plain(text: &str) -> bool {
    // Without a way out in the middle of a piece, several bytes are looked at in one step.
    text.as_bytes().chunks(16).all(|piece| {
        piece
            .iter()
            .fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
    })
}

/// Runs of letters and digits, with where they start.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// Whether it can be found as a word in a text.
pub(crate) fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word.chars().count() <= WORD_CHARS_MAX
        && word.chars().all(char::is_alphanumeric)
}
