//! Parses input lines.

/// The commands, for people.
pub(crate) const HELP: &str = "/to USER or /room ROOM: whom lines are for; /join [ROOM]; /leave [ROOM]; \
    /me TEXT; /raw JSON; /quit";

/// A parsed line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// An empty line.
    Nothing,
    /// Send this text.
    Say(String),
    /// Send this text in the third person.
    Me(String),
    /// Send subsequent lines to this user.
    To(String),
    /// Send subsequent lines to this room.
    Room(String),
    /// Join this room, or the current one.
    Join(Option<String>),
    /// Leave this room, or the current one.
    Leave(Option<String>),
    /// Send the message in this frame.
    Raw(String),
    /// List the commands.
    Help,
    /// Close the connection and exit.
    Quit,
}

impl Command {
    /// Parses a line.
    ///
    /// # Errors
    /// Returns a text for people that says what is wrong with the line.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return Ok(match line {
                "" => Self::Nothing,
                text => Self::Say(text.to_owned()),
            });
        };
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        let rest = rest.trim();
        let given = (!rest.is_empty()).then(|| rest.to_owned());
        let needed = |what: &str| given.clone().ok_or_else(|| format!("/{name} needs {what}"));
        Ok(match name {
            "to" => Self::To(needed("a user")?),
            "room" => Self::Room(needed("a room")?),
            "join" => Self::Join(given),
            "leave" => Self::Leave(given),
            "me" => Self::Me(needed("a text")?),
            "raw" => Self::Raw(needed("a frame")?),
            "help" => Self::Help,
            "quit" => Self::Quit,
            _ => return Err(format!("/{name} is unknown; {HELP}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_slash_is_a_text() {
        assert_eq!(
            Command::parse("  hi there "),
            Ok(Command::Say("hi there".into()))
        );
        assert_eq!(Command::parse("  "), Ok(Command::Nothing));
    }

    #[test]
    fn commands_take_what_follows_them() {
        for (line, command) in [
            ("/to bob", Command::To("bob".into())),
            ("/room  the lobby ", Command::Room("the lobby".into())),
            ("/join", Command::Join(None)),
            ("/join lobby", Command::Join(Some("lobby".into()))),
            ("/leave", Command::Leave(None)),
            ("/me waves", Command::Me("waves".into())),
            (
                r#"/raw {"type":"heartbeat"}"#,
                Command::Raw(r#"{"type":"heartbeat"}"#.into()),
            ),
            ("/quit", Command::Quit),
        ] {
            assert_eq!(Command::parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn a_command_that_lacks_something_or_is_unknown_says_so() {
        for line in ["/to", "/room ", "/me", "/raw"] {
            assert!(
                Command::parse(line).unwrap_err().contains("needs"),
                "{line}"
            );
        }
        assert!(
            Command::parse("/dance")
                .unwrap_err()
                .contains("/dance is unknown")
        );
    }
}
