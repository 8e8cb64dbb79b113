//! Arbitrary texts and environments.

use super::*;

fn environments() -> impl Strategy<Value = BTreeMap<String, String>> {
    let names: Vec<String> = KEYS
        .iter()
        .map(Key::variable)
        .chain(["WSS_PORT".to_owned(), "SIGNALBOX_X".to_owned()])
        .collect();
    prop::collection::btree_map(prop::sample::select(names), any::<String>(), 0..4)
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String, environment in environments()) {
        let _ = Config::parse(&text, Path::new("a.toml"), &environment).map_err(|errors| errors.to_string());
    }

    #[test]
    fn a_valid_file_with_any_stretch_replaced_is_read_or_refused(
        from in 0usize..3100,
        length in 0usize..40,
        put in prop_oneof![any::<String>(), "[\\[\\]\"'={}#.,\n a-z0-9-]{0,12}"],
    ) {
        let mut text = include_str!("../testdata/valid/everything.toml").to_owned();
        let from = from.min(text.len());
        let to = (from + length).min(text.len());
        text.replace_range(from..to, &put);
        match Config::parse(&text, Path::new("a.toml"), &Environment::new()) {
            Ok(config) => {
                prop_assert!(config.server.idle_timeout > config.server.ping_interval);
                let history = config.rooms.rule("chat:7").history;
                prop_assert!(history.is_none_or(|history| (1..=10_000).contains(&history.size)));
            }
            Err(errors) => prop_assert!(!errors.errors().is_empty()),
        }
    }
}
