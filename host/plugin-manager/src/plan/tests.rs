//! Tests the plans for files and pushed components. The modules have the other cases.

mod activation;
mod rollback;
mod start;

use std::{path::Path, time::SystemTime};

use signalbox_config::{Config, Environment};

use super::*;
use crate::{
    history::{KeptVersion, RolledBackVersion},
    plugin_history::{Pin, RefusedFile, VersionEnd},
};

const FORCED: PushOptions = PushOptions {
    force: true,
    no_probation: false,
};
const WITHOUT_PROBATION: PushOptions = PushOptions {
    force: false,
    no_probation: true,
};

fn config(more: &str) -> Arc<PluginConfig> {
    let text =
        format!("[[plugins]]\nname = \"chat\"\npath = \"chat.wasm\"\nevents = [\"*\"]\n{more}");
    let config = Config::parse(&text, Path::new("/srv/platform.toml"), &Environment::new());
    Arc::new(config.expect("it is valid").plugins[0].clone())
}

fn with_rollout() -> Arc<PluginConfig> {
    config("rollout = { mode = \"shadow\" }\n")
}

fn hash(version: u8) -> Sha256 {
    Sha256::of(&[version])
}

fn content(version: u8) -> Content {
    Ok(hash(version))
}

fn unreadable() -> Content {
    Err("no such file".to_owned())
}

fn entry(version: u8, end: Option<VersionEnd>) -> VersionEntry {
    let kept = KeptVersion {
        sha256: hash(version),
        config: VersionId::new(hash(version), &config("")).config,
        semver: None,
        since: SystemTime::UNIX_EPOCH,
        trigger: Trigger::File,
    };
    VersionEntry::recalled(&kept, end)
}

fn ended(rolled_back: bool) -> Option<VersionEnd> {
    Some(VersionEnd {
        at: SystemTime::UNIX_EPOCH,
        rolled_back,
    })
}

/// A record of the live version 1, which replaced 2, which was rolled back to from 3.
fn record() -> PluginHistory {
    PluginHistory {
        entries: [
            entry(1, None),
            entry(3, ended(true)),
            entry(2, ended(false)),
        ]
        .into(),
        ..PluginHistory::default()
    }
}

fn pinned(file: Content, config: Arc<PluginConfig>) -> PluginHistory {
    let pin = Some(Pin {
        file: Some(file),
        config,
    });
    PluginHistory { pin, ..record() }
}

fn barred(version: u8, history: PluginHistory) -> PluginHistory {
    let rolled_back = vec![RolledBackVersion {
        sha256: hash(version),
        config: None,
        reason: "it trapped".to_owned(),
        at: SystemTime::UNIX_EPOCH,
    }];
    PluginHistory {
        rolled_back,
        ..history
    }
}

/// A record of an earlier process in which version 1 was live, and 2 before it.
fn recalled(file: Option<u8>, held: bool) -> PluginHistory {
    let recalled = Some(PersistedHistory {
        live: hash(1),
        file: file.map(hash),
        held,
        earlier: vec![hash(2)],
    });
    PluginHistory {
        recalled,
        ..PluginHistory::default()
    }
}

/// The plugin with version 1 live, unless the test says otherwise.
struct Case {
    config: Arc<PluginConfig>,
    live: Option<u8>,
    on_trial: Option<u8>,
    history: PluginHistory,
    trigger: Trigger,
}

impl Case {
    fn new(trigger: Trigger, history: PluginHistory) -> Self {
        Self {
            config: config(""),
            live: Some(1),
            on_trial: None,
            history,
            trigger,
        }
    }

    fn at_start(history: PluginHistory) -> Self {
        Self {
            live: None,
            ..Self::new(Trigger::Start, history)
        }
    }

    fn observed(&self) -> Observed<'_> {
        let id = |version| VersionId::new(hash(version), &config(""));
        Observed {
            config: &self.config,
            live: self.live.map(id),
            on_trial: self.on_trial.map(id),
            history: &self.history,
            trigger: self.trigger,
        }
    }

    fn plan_file(&self, content: Content) -> Plan {
        self.observed().plan_file(&content, false)
    }

    fn resume(&self, content: Content) -> (Vec<LoadStep>, Fallback) {
        match self.plan_file(content) {
            Plan::Load(plan) => (plan.steps, plan.fallback),
            other => panic!("{other:?}"),
        }
    }

    fn push(&self, version: u8, options: PushOptions) -> Result<Plan, ChangeError> {
        self.observed().plan_component(hash(version), options)
    }

    fn activation(&self, loaded: Loaded) -> Activation {
        self.observed().plan_activation(loaded)
    }
}

fn given() -> LoadStep {
    LoadStep::given(Origin::File)
}

fn kept(version: u8, origin: Origin) -> LoadStep {
    LoadStep {
        source: LoadSource::Kept(hash(version)),
        origin,
    }
}

fn load_given(origin: Origin) -> Plan {
    Plan::Load(LoadPlan::given(origin))
}

#[test]
fn a_changed_file_is_loaded_and_an_unchanged_one_is_not() {
    for trigger in [Trigger::File, Trigger::Config, Trigger::Reload] {
        let case = Case::new(trigger, record());
        assert_eq!(case.plan_file(content(1)), Plan::FollowFile);
        assert_eq!(case.plan_file(content(2)), load_given(Origin::File));
        // Loading it reports why it cannot be read.
        assert_eq!(case.plan_file(unreadable()), load_given(Origin::File));
    }
}

#[test]
fn an_unchanged_file_is_loaded_again_with_another_configuration() {
    let case = Case {
        config: config("on_failure = \"pass\"\n"),
        ..Case::new(Trigger::Config, record())
    };
    assert_eq!(case.plan_file(content(1)), load_given(Origin::File));
}

#[test]
fn a_refused_file_is_loaded_again_once_it_changes_or_somebody_requests_it() {
    let refused = || PluginHistory {
        refused: Some(RefusedFile {
            config: config(""),
            content: content(4),
        }),
        ..record()
    };
    let changed = Case::new(Trigger::File, refused());
    let keep = Plan::Keep(Unchanged::Refused);
    assert_eq!(changed.plan_file(content(4)), keep);
    assert_eq!(changed.plan_file(content(5)), load_given(Origin::File));
    for trigger in [Trigger::Signal, Trigger::Reload, Trigger::Config] {
        let requested = Case::new(trigger, refused());
        assert_eq!(requested.plan_file(content(4)), load_given(Origin::File));
    }
}

#[test]
fn an_overridden_file_is_skipped_until_it_changes() {
    let case = Case::new(Trigger::File, pinned(content(4), config("")));
    assert_eq!(case.plan_file(content(4)), Plan::Keep(Unchanged::Held));
    assert_eq!(case.plan_file(content(5)), load_given(Origin::File));
    assert_eq!(case.plan_file(content(1)), Plan::FollowFile);
}

#[test]
fn a_new_configuration_applies_to_the_version_that_overrides_the_file() {
    let case = Case {
        config: config("on_failure = \"pass\"\n"),
        ..Case::new(Trigger::Config, pinned(content(4), config("")))
    };
    let readmission = Plan::Load(LoadPlan::new(vec![LoadStep {
        source: LoadSource::Readmission(VersionId::new(hash(1), &config(""))),
        origin: Origin::Operator,
    }]));
    assert_eq!(case.plan_file(content(4)), readmission);
}

#[test]
fn a_version_that_was_rolled_back_is_not_loaded_from_the_file_unless_forced() {
    let case = Case::new(Trigger::Reload, barred(4, record()));
    assert_eq!(
        case.plan_file(content(4)),
        Plan::Keep(Unchanged::RolledBack)
    );
    let forced = case.observed().plan_file(&content(4), true);
    assert_eq!(
        forced,
        Plan::Load(LoadPlan::given(Origin::File).insisted(true))
    );
}

#[test]
fn a_version_on_trial_is_not_loaded_twice() {
    let case = Case {
        on_trial: Some(4),
        ..Case::new(Trigger::Reload, record())
    };
    let on_trial = Plan::Keep(Unchanged::OnTrial);
    assert_eq!(case.plan_file(content(4)), on_trial);
    assert_eq!(case.push(4, PushOptions::default()).unwrap(), on_trial);
    let forced = Plan::Load(LoadPlan::given(Origin::Operator).insisted(true));
    assert_eq!(case.push(4, FORCED).unwrap(), forced);
}

#[test]
fn a_pushed_version_that_was_rolled_back_takes_force() {
    let case = Case::new(Trigger::Push, barred(4, record()));
    for options in [PushOptions::default(), WITHOUT_PROBATION] {
        let error = case.push(4, options).unwrap_err();
        assert!(matches!(error, ChangeError::RolledBack { .. }), "{error}");
    }
    let forced = Plan::Load(LoadPlan::given(Origin::Operator).insisted(true));
    assert_eq!(case.push(4, FORCED).unwrap(), forced);
    let live = Plan::Keep(Unchanged::Live);
    assert_eq!(case.push(1, FORCED).unwrap(), live);
}

#[test]
fn a_push_without_probation_is_not_watched() {
    let case = Case::new(Trigger::Push, record());
    let plan = |options| match case.push(4, options).unwrap() {
        Plan::Load(plan) => (plan.insisted, plan.watched),
        other => panic!("{other:?}"),
    };
    assert_eq!(plan(PushOptions::default()), (false, true));
    assert_eq!(plan(FORCED), (true, true));
    assert_eq!(plan(WITHOUT_PROBATION), (true, false));
}
