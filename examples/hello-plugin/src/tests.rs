use signalbox_plugin::{Draft, testing::message};

use super::*;

fn plugin(config: &str) -> Hello {
    Hello::init(config).expect("a good configuration")
}

#[test]
fn a_note_is_a_text_of_at_most_280_bytes() {
    let check = |note: &str| plugin("{}").validate(&message("note", note));
    let note = |bytes| format!("\"{}\"", "x".repeat(bytes));
    assert_eq!(check(&note(280)), Ok(()));
    assert_eq!(check(&note(281)).unwrap_err().code, "too_long");
    assert_eq!(check("7").unwrap_err().code, "invalid_payload");
}

#[test]
fn smiles_become_faces_and_the_rest_stays() {
    let transform = |note: &str| plugin("{}").transform(&message("note", note));
    assert!(matches!(transform(r#""hi""#), Ok(Outcome::Unchanged)));
    let Ok(Outcome::Changed(draft)) = transform(r#""hi :)""#) else {
        panic!("the note has a smile");
    };
    assert_eq!(
        (draft.event_type.as_str(), draft.payload.as_str()),
        ("note", r#""hi 🙂""#)
    );
}

#[test]
fn a_wave_is_answered_with_the_configured_greeting() {
    let answer = |config: &str| {
        plugin(config)
            .handle(&message("hello.wave", "null"))
            .unwrap()
    };
    for (config, greeting) in [
        ("{}", r#""Hello, ann""#),
        (r#"{"greeting":"Servus"}"#, r#""Servus, ann""#),
    ] {
        let actions = answer(config);
        let [Action::Announce(Draft { payload, .. })] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        assert_eq!(payload, greeting);
    }
}

#[test]
fn a_misspelled_key_keeps_the_plugin_from_going_live() {
    let error = Hello::init(r#"{"greting":"Hi"}"#).err();
    assert!(error.is_some_and(|error| error.contains("greting")));
}
