//! Mistakes that authors make, and the messages about them: from `signalbox plugin build`, in the server's log, and
//! from its admin API.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::client::Client;
use super::node::{Node, Served};
use super::signalbox::Signalbox;
use super::{Steps, Stopped, journey};

/// A change to the template of a language, and the messages about it.
struct Mistake {
    language: &'static str,
    file: &'static str,
    /// Pairs of a text and its replacement.
    changes: &'static [(&'static str, &'static str)],
    /// The exit code of `plugin build`: 1 if nothing is built, 2 if the component is refused, 0 if only calls fail.
    exit_code: i32,
    /// Texts that must be in its output, among others.
    told: &'static [&'static str],
    /// Whether a call never ends.
    endless: bool,
}

/// The messages about an endless call, one of which must be in the output: on a busy machine the call reaches
/// `call_time_max` before `call_cpu_max`.
const ENDLESS: [&str; 2] = [
    "more CPU time than it may (10ms, `call_cpu_max`",
    "the call took longer than it may (`call_time_max`",
];

const MISTAKES: &[Mistake] = &[
    Mistake {
        language: "javascript",
        file: "src/plugin.js",
        changes: &[("export const events", "const events")],
        exit_code: 1,
        told: &[
            "src/plugin.js exports no `events`",
            "add `export const events = …`",
        ],
        endless: false,
    },
    Mistake {
        language: "javascript",
        file: "src/plugin.js",
        changes: &[("function validate(", "async function validate(")],
        exit_code: 1,
        told: &["validate is async, and nobody waits for it"],
        endless: false,
    },
    Mistake {
        language: "javascript",
        file: "src/plugin.js",
        changes: &[
            ("function validate(", "async function validate("),
            ("signalbox.guard({ validate })", "{ validate }"),
        ],
        exit_code: 1,
        told: &["validation.validate is async, and nobody waits for it"],
        endless: false,
    },
    Mistake {
        language: "javascript",
        file: "src/plugin.js",
        changes: &[
            (
                "signalbox.guard({ validate })",
                "{ validate: () => Promise.reject(1) }",
            ),
            (
                "signalbox.guard({ transform })",
                "{ transform: () => (function* () {})() }",
            ),
        ],
        exit_code: 2,
        told: &[
            "refused: validation.validate",
            "validation.validate returned a promise, and nobody waits for it",
            "transformation.transform returned an iterator, and nobody waits for it",
        ],
        endless: false,
    },
    Mistake {
        language: "javascript",
        file: "src/plugin.js",
        changes: &[
            (
                "if (message.eventType !== \"note\") return;",
                "console.log(new Date()); setTimeout(() => {}, 1);",
            ),
            (
                "function transform(message) {",
                "function transform(message) { throw \"some text\";",
            ),
            (
                "return [signalbox.reply(",
                "process.exit(1); return [signalbox.reply(",
            ),
        ],
        exit_code: 0,
        told: &[
            "setTimeout is not available: there are no timers in a plugin",
            "transformation.transform threw \"some text\"",
            "process is not defined: this is not Node.js",
        ],
        endless: false,
    },
    Mistake {
        language: "javascript",
        file: "src/plugin.js",
        changes: &[
            ("const note = signalbox.payload(message);", ""),
            (
                "if (message.eventType !== \"note\") return;",
                "signalbox.log.info(note);",
            ),
            ("return signalbox.unchanged;", "return \"unchanged\";"),
            (
                "return [signalbox.reply(",
                "for (;;) {} return [signalbox.reply(",
            ),
        ],
        exit_code: 0,
        told: &[
            "the plugin said: validation.validate: ReferenceError",
            "transformation.transform returned unchanged, and must return an outcome",
            "although calls fail",
        ],
        endless: true,
    },
    Mistake {
        language: "typescript",
        file: "src/plugin.ts",
        changes: &[(
            "guard({ eventTypes: () => [\"NAME.hello\"], handle })",
            "guard({ handle })",
        )],
        exit_code: 1,
        told: &["src/plugin.ts", "eventTypes"],
        endless: false,
    },
    Mistake {
        language: "typescript",
        file: "src/plugin.ts",
        changes: &[(
            "function validate(message: Message): void {",
            "async function validate(message: Message): Promise<void> {",
        )],
        exit_code: 1,
        told: &["src/plugin.ts", "nobody waits for its answer"],
        endless: false,
    },
    Mistake {
        language: "python",
        file: "app.py",
        changes: &[("    @guarded\n    def validate(", "    async def validate(")],
        exit_code: 1,
        told: &["Validation.validate is async, and nobody waits for it"],
        endless: false,
    },
    Mistake {
        language: "python",
        file: "app.py",
        changes: &[(
            "class Events(exports.Events):",
            "class Other(exports.Events):",
        )],
        exit_code: 1,
        told: &["Events"],
        endless: false,
    },
    Mistake {
        language: "python",
        file: "app.py",
        changes: &[
            (
                "if message.event_type != \"note\":",
                "if mesage.event_type != \"note\":",
            ),
            ("return signalbox.UNCHANGED", "return 7"),
            (
                "return [signalbox.reply(",
                "while True: pass\n        return [signalbox.reply(",
            ),
        ],
        exit_code: 0,
        told: &["the plugin said: ", "NameError", "in validate"],
        endless: true,
    },
];

/// Texts that report an exception while messages flow, and the place in the code.
const LIVE: &[(&str, [&str; 2])] = &[
    ("javascript", ["ReferenceError", "validate"]),
    ("python", ["NameError", "in validate"]),
];

/// Makes the mistakes of `language`, if there are any, in the project that the journey has left. The last one is
/// pushed.
pub(super) fn run(signalbox: &Signalbox, language: &str, steps: &mut Steps) -> Result<(), Stopped> {
    let mistakes = || MISTAKES.iter().filter(|of| of.language == language);
    if mistakes().next().is_none() {
        return Ok(());
    }
    let name = journey::name(language);
    let folder = signalbox.folder(&name);
    let component = folder.join("dist").join(format!("{name}.wasm"));
    let all = || -> anyhow::Result<()> {
        let good = fs::read(&component)?;
        for mistake in mistakes() {
            make(signalbox, &folder, &name, mistake)?;
        }
        if let Some((_, parts)) = LIVE.iter().find(|(of, _)| *of == language) {
            fail_live(signalbox, &folder, &name, parts)?;
        }
        // Later steps use the original plugin.
        fs::write(&component, good).context("the component")
    };
    steps.step("mistakes", || all().map_err(Stopped::Failed))
}

/// Changes the source, builds, checks the output, and changes the source back.
fn make(signalbox: &Signalbox, folder: &Path, name: &str, mistake: &Mistake) -> anyhow::Result<()> {
    let file = folder.join(mistake.file);
    let good = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mut bad = good.clone();
    for (from, to) in mistake.changes {
        let from = from.replace("NAME", name);
        ensure!(bad.contains(&from), "{} has no {from:?}", file.display());
        bad = bad.replacen(&from, to, 1);
    }
    fs::write(&file, bad)?;
    let output = signalbox.output(folder, &["plugin", "build"], &[])?;
    fs::write(&file, good)?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.code() == Some(mistake.exit_code),
        "`plugin build` ended with {}: {stdout}{stderr}",
        output.status
    );
    let says = |part: &str| stdout.contains(part) || stderr.contains(part);
    for part in mistake.told {
        ensure!(
            says(part),
            "`plugin build` says nothing of {part:?}: {stdout}{stderr}"
        );
    }
    ensure!(
        !mistake.endless || ENDLESS.iter().any(|limit| says(limit)),
        "`plugin build` says nothing of a call that never ends: {stdout}{stderr}"
    );
    Ok(())
}

/// Pushes the last build, whose validator throws, and looks for the exception in the log and in the admin API.
fn fail_live(
    signalbox: &Signalbox,
    folder: &Path,
    name: &str,
    parts: &[&str],
) -> anyhow::Result<()> {
    let served = Served {
        plugins: &[name.to_owned()],
        event_type: "note",
        on_failure: "reject",
        single: false,
    };
    let node = Node::start(signalbox, &format!("{name}-mistaken"), &served)?;
    let file = folder.join("dist").join(format!("{name}.wasm"));
    signalbox.push(name, &file, &node.access())?;
    let mut client = Client::connect(node.address)?;
    let note = json!({"type": "note", "payload": "x", "receiverId": "ann"});
    let refused = client.ask(&note, "error")?;
    ensure!(
        refused["code"] == "plugin_failed",
        "the sender is told {refused}"
    );
    let answer = signalbox.ask(&["plugin", "list", "--json"], &node.access())?;
    let error = answer["plugins"][0]["versions"][0]["last_error"].to_string();
    ensure!(
        parts.iter().all(|part| error.contains(part)),
        "the admin API says {error}"
    );
    node.wait_for_line(&[&["a call of the plugin failed"], parts].concat())
}
