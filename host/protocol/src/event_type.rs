//! Event types: their syntax, the built-in ones, and patterns that match them.

/// Longest event type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 64;

/// The types that mean something to the server itself, now or later in the same version of the protocol. No plugin,
/// backend or worker can claim or send one of them.
pub const BUILT_IN: [&str; 13] = [
    "latency_report",
    "heartbeat",
    "join",
    "leave",
    "token",
    "history",
    "welcome",
    "ack",
    "error",
    "joined",
    "left",
    "presence",
    "token_expiring",
];

/// The prefix of types that are reserved for nodes.
pub const RESERVED_START: &str = "signalbox.";

/// Whether `name` is 1 to 64 of `A-Z a-z 0-9 _ . : -`.
pub fn is_valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= EVENT_TYPE_BYTES_MAX
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
}

/// Whether the server itself owns `name`: it is built in, or begins with [`RESERVED_START`].
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name) || name.starts_with(RESERVED_START)
}

/// A set of event types: exact names, and prefixes (`chat.*`, or `*` for all).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    exact: Vec<Box<str>>,
    prefixes: Vec<Box<str>>,
}

/// How closely a pattern matches a name; greater is closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closeness {
    /// By a prefix of this many bytes.
    Prefix(usize),
    /// By the name itself.
    Exact,
}

impl Patterns {
    /// The types that are named in full.
    pub fn exact(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(|name| &**name)
    }

    /// Parses patterns.
    ///
    /// # Errors
    /// Returns the first text that is neither an event type nor a prefix of one followed by `*`, or that is built in.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, PatternError> {
        let mut patterns = Self::default();
        for text in texts.iter().map(AsRef::as_ref) {
            match text.strip_suffix('*') {
                Some(prefix) if prefix.starts_with(RESERVED_START) => {
                    return Err(PatternError::BuiltIn(text.to_owned()));
                }
                Some(prefix) if prefix.is_empty() || is_valid(prefix) => {
                    patterns.prefixes.push(prefix.into())
                }
                None if is_built_in(text) => return Err(PatternError::BuiltIn(text.to_owned())),
                None if is_valid(text) => patterns.exact.push(text.into()),
                _ => return Err(PatternError::Malformed(text.to_owned())),
            }
        }
        Ok(patterns)
    }

    /// Whether any of the patterns matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.exact.iter().any(|exact| **exact == *name)
            || self
                .prefixes
                .iter()
                .any(|prefix| name.starts_with(&**prefix))
    }

    /// The closest match of `name`, if there is one.
    pub fn closeness(&self, name: &str) -> Option<Closeness> {
        if self.exact.iter().any(|exact| **exact == *name) {
            return Some(Closeness::Exact);
        }
        let described = self
            .prefixes
            .iter()
            .filter(|prefix| name.starts_with(&***prefix));
        described
            .map(|prefix| Closeness::Prefix(prefix.len()))
            .max()
    }

    /// A pattern that both sets contain literally.
    pub fn shared_with(&self, other: &Self) -> Option<String> {
        let exact = self
            .exact
            .iter()
            .find(|name| other.exact.contains(name))
            .map(ToString::to_string);
        exact.or_else(|| {
            self.prefixes
                .iter()
                .find(|prefix| other.prefixes.contains(prefix))
                .map(|prefix| format!("{prefix}*"))
        })
    }

    /// The patterns of both sets.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let both = |ones: &[Box<str>], others: &[Box<str>]| [ones, others].concat();
        Self {
            exact: both(&self.exact, &other.exact),
            prefixes: both(&self.prefixes, &other.prefixes),
        }
    }

    /// A name that one of the patterns matches: the first exact one, or else one under the first prefix.
    pub fn first_match(&self) -> Option<String> {
        let exact = self.exact.first().map(ToString::to_string);
        exact.or_else(|| {
            let mut name = self.prefixes.first()?.to_string();
            if name.len() < EVENT_TYPE_BYTES_MAX {
                name.push('x');
            }
            Some(name)
        })
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternError {
    /// It is malformed.
    #[error(
        "`{0}` is not an event type or pattern: use 1 to 64 of `A-Z a-z 0-9 _ . : -`, with at most one `*`, at the \
         end"
    )]
    Malformed(String),
    /// It names a built-in type.
    #[error("`{0}` is built in and cannot be handled by a plugin")]
    BuiltIn(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sets_together_have_the_patterns_of_both() {
        let [one, other] = [["a", "b.*"], ["c", "d.*"]].map(|texts| Patterns::parse(&texts));
        let both = one.unwrap().with(&other.unwrap());
        for name in ["a", "b.x", "c", "d.x"] {
            assert!(both.matches(name), "{name}");
        }
        assert_eq!(both.closeness("d.x"), Some(Closeness::Prefix(2)));
        assert!(!both.matches("e"));
    }

    #[test]
    fn event_types_are_1_to_64_of_a_small_alphabet() {
        assert!(is_valid("chat_message") && is_valid("game.move:2-b") && is_valid(&"x".repeat(64)));
        for bad in ["", "a b", "ä", "a*", "a/b", "a\n"] {
            assert!(!is_valid(bad), "{bad:?}");
        }
        assert!(!is_valid(&"x".repeat(65)));
    }

    #[test]
    fn patterns_match_names_and_prefixes() {
        let patterns = Patterns::parse(&["chat_message", "game.*"]).unwrap();
        assert!(
            patterns.matches("chat_message")
                && patterns.matches("game.move")
                && patterns.matches("game.")
        );
        assert!(!patterns.matches("chat_messages") && !patterns.matches("game"));
        assert!(Patterns::parse(&["*"]).unwrap().matches("anything"));
    }

    #[test]
    fn the_closest_pattern_wins() {
        let patterns = Patterns::parse(&["a.*", "a.b.*", "a.b.c"]).unwrap();
        assert_eq!(patterns.closeness("a.b.c"), Some(Closeness::Exact));
        assert!(patterns.closeness("a.b.x") > patterns.closeness("a.x"));
        assert_eq!(patterns.closeness("b"), None);
    }

    #[test]
    fn a_set_of_patterns_names_a_type_that_it_describes() {
        let long = format!("{}*", "a".repeat(64));
        for text in ["a.b", "a.*", "*", &long] {
            let patterns = Patterns::parse(&[text]).unwrap();
            let name = patterns.first_match().unwrap();
            assert!(is_valid(&name) && patterns.matches(&name), "{name}");
        }
        assert_eq!(Patterns::default().first_match(), None);
    }

    #[test]
    fn malformed_and_built_in_patterns_are_refused() {
        assert!(matches!(
            Patterns::parse(&["a*b"]),
            Err(PatternError::Malformed(_))
        ));
        assert!(matches!(
            Patterns::parse(&["**"]),
            Err(PatternError::Malformed(_))
        ));
        for name in BUILT_IN
            .into_iter()
            .chain(["signalbox.probe", "signalbox.*", "signalbox.x.*"])
        {
            assert!(matches!(
                Patterns::parse(&[name]),
                Err(PatternError::BuiltIn(_))
            ));
        }
    }

    #[test]
    fn the_same_pattern_in_two_sets_is_found() {
        let one = Patterns::parse(&["a", "b.*"]).unwrap();
        assert_eq!(
            one.shared_with(&Patterns::parse(&["b.*"]).unwrap())
                .as_deref(),
            Some("b.*")
        );
        assert_eq!(one.shared_with(&Patterns::parse(&["b.c"]).unwrap()), None);
    }
}
