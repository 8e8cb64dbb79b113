//! `.env`, `.env.local` and the variables of the process: their contents and precedence.

use std::{cell::Cell, fs, io, path::Path, rc::Rc};

use super::{
    Environment,
    errors::{ConfigError, ConfigErrors, SettingPlace},
    keys::{self, OLD_VARIABLES, PREFIX},
};

/// The files with variables that are read from a folder if they exist; the later one takes precedence.
pub const FILES: [&str; 2] = [".env", ".env.local"];

/// The variables of this process, which take precedence over those of the [`FILES`] in `folder`.
///
/// # Errors
///
/// Returns the files that cannot be read, their invalid lines, and `SIGNALBOX_` variables that are not UTF-8.
pub fn gather(folder: &Path) -> Result<Environment, ConfigErrors> {
    let mut errors = Vec::new();
    let mut environment = Environment::new();
    for name in FILES {
        environment.extend(read_file(&folder.join(name), &mut errors));
    }
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => {
                environment.insert(name, value);
            }
            Err(_) if is_ours(&name) => errors.push(ConfigError {
                place: SettingPlace::Variable(name),
                key: String::new(),
                message: "is not valid UTF-8; set it to text".to_owned(),
            }),
            Err(_) => {}
        }
    }
    if errors.is_empty() {
        Ok(environment)
    } else {
        Err(ConfigErrors::new(folder, errors))
    }
}

/// The variables of one file; empty if it does not exist.
fn read_file(file: &Path, errors: &mut Vec<ConfigError>) -> Environment {
    let mut found = Vec::new();
    let environment = match fs::read_to_string(file) {
        Ok(text) => parse_dotenv(&text, &mut found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Environment::new(),
        Err(error) => {
            found.push(ConfigError {
                place: SettingPlace::File,
                key: String::new(),
                message: format!("cannot be read: {error}; correct or remove it"),
            });
            Environment::new()
        }
    };
    errors.extend(found.into_iter().map(|error| error.within(file)));
    environment
}

/// The assignments in a `.env`. Invalid lines are added to `errors` by number, never with their contents.
fn parse_dotenv(text: &str, errors: &mut Vec<ConfigError>) -> Environment {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Rc::new(Cell::new(0));
    let reader = LineReader {
        rest: text.as_bytes(),
        lines: Rc::clone(&lines),
    };
    let mut environment = Environment::new();
    for item in dotenvy::from_read_iter(reader) {
        match item {
            // The first of two assignments wins, as usual with dotenv.
            Ok((name, value)) => {
                environment.entry(name).or_insert(value);
            }
            Err(error) => {
                // An open quote extends over all lines up to the end of the file: the error belongs to the first of
                // them.
                let taken = match &error {
                    dotenvy::Error::LineParse(taken, _) => taken.lines().count().max(1),
                    _ => 1,
                };
                errors.push(ConfigError {
                    place: SettingPlace::At {
                        line: (lines.get() + 1).saturating_sub(taken),
                        column: 1,
                    },
                    key: String::new(),
                    message: "is not an assignment; write NAME=value, with the value in quotes if it has spaces"
                        .to_owned(),
                });
            }
        }
    }
    environment
}

/// Returns one line at a time, so that the line number is that of the line being parsed.
struct LineReader<'t> {
    rest: &'t [u8],
    lines: Rc<Cell<usize>>,
}

impl io::Read for LineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line = self
            .rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.rest.len(), |at| at + 1);
        let length = line.min(buffer.len());
        let (now, rest) = self.rest.split_at(length);
        if let Some(target) = buffer.get_mut(..length) {
            target.copy_from_slice(now);
        }
        if length > 0 && length == line {
            self.lines.set(self.lines.get() + 1);
        }
        self.rest = rest;
        Ok(length)
    }
}

fn is_ours(name: &str) -> bool {
    let old = name.strip_suffix(keys::FILE_SUFFIX).unwrap_or(name);
    name.starts_with(PREFIX) || OLD_VARIABLES.iter().any(|(known, _)| *known == old)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dotenv_lines() {
        let mut errors = Vec::new();
        let text = "\u{feff}# a comment\n\nexport A=1\nB=\"two words\"\nA=2\nC=\n";
        let environment = parse_dotenv(text, &mut errors);
        assert_eq!(errors, []);
        let expected = [("A", "1"), ("B", "two words"), ("C", "")];
        assert!(
            environment
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .eq(expected)
        );
    }

    #[test]
    fn an_error_in_a_dotenv_file_has_the_line_number_and_not_the_content() {
        let mut errors = Vec::new();
        let text = "A=1\nhush secret\nB=2\nC=\"open\nD=secret\n";
        let environment = parse_dotenv(text, &mut errors);
        let lines: Vec<_> = errors.iter().map(|error| error.place.clone()).collect();
        assert_eq!(
            lines,
            [2, 4].map(|line| SettingPlace::At { line, column: 1 })
        );
        assert_eq!(environment.len(), 2);
        assert!(!format!("{errors:?}").contains("secret"));
    }

    #[test]
    fn the_environment_is_that_of_the_process_over_a_dotenv_in_the_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(
            folder.path().join(".env"),
            "PATH=nowhere\nSIGNALBOX_FROM_DOTENV=1\n",
        )
        .expect("a file");
        let environment = gather(folder.path()).expect("both are legal");
        assert_eq!(environment.get("PATH"), std::env::var("PATH").ok().as_ref());
        assert_eq!(
            environment.get("SIGNALBOX_FROM_DOTENV").map(String::as_str),
            Some("1")
        );
    }

    #[test]
    fn a_local_dotenv_wins_over_the_common_one_and_the_process_over_both() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name, text| fs::write(folder.path().join(name), text).expect("a file");
        write(".env", "PATH=a\nSIGNALBOX_A=1\nSIGNALBOX_B=1\n");
        write(".env.local", "PATH=b\nSIGNALBOX_B=2\nSIGNALBOX_C=2\n");
        let environment = gather(folder.path()).expect("all are legal");
        let get = |name| environment.get(name).map(String::as_str);
        assert_eq!(get("PATH"), std::env::var("PATH").ok().as_deref());
        assert_eq!(
            ["SIGNALBOX_A", "SIGNALBOX_B", "SIGNALBOX_C"].map(get),
            [Some("1"), Some("2"), Some("2")]
        );
    }

    #[test]
    fn errors_of_both_dotenv_files_come_at_once_each_with_its_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(".env"), "A=1\nx\n").expect("a file");
        fs::write(folder.path().join(".env.local"), "y\n").expect("a file");
        let errors = gather(folder.path()).expect_err("both have such lines");
        let text = errors.to_string();
        assert!(text.contains(".env:2:1: is not an assignment"), "{text}");
        assert!(
            text.contains(".env.local:1:1: is not an assignment"),
            "{text}"
        );
    }

    #[test]
    fn a_broken_dotenv_is_an_error_with_file_and_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(".env"), "A=1\n=\n").expect("a file");
        let errors = gather(folder.path()).expect_err("the second line is no assignment");
        assert!(
            errors
                .to_string()
                .contains(".env:2:1: is not an assignment"),
            "{errors}"
        );
    }

    proptest! {
        #[test]
        fn any_dotenv_is_read_or_refused(text: String) {
            let mut errors = Vec::new();
            let lines = text.lines().count();
            parse_dotenv(&text, &mut errors);
            for error in errors {
                let SettingPlace::At { line, .. } = error.place else { panic!("{error:?}") };
                prop_assert!((1..=lines).contains(&line), "line {} of {}", line, lines);
            }
        }
    }
}
