//! How a loaded version goes live: at once, after a trial, or not at all.

use std::time::Duration;

use super::*;

fn loaded(origin: Origin, requested: Instant) -> Loaded {
    Loaded {
        origin,
        insisted: false,
        requested,
        has_state: false,
    }
}

#[test]
fn a_version_is_tried_first_only_if_a_rollout_is_configured_and_there_is_a_live_one() {
    let now = Instant::now();
    let file = loaded(Origin::File, now);
    let insisted = Loaded {
        insisted: true,
        ..file
    };
    let with = |trigger, live| Case {
        config: with_rollout(),
        live,
        ..Case::new(trigger, record())
    };
    let trial = Activation::Trial(RolloutConfig::Shadow);
    assert_eq!(with(Trigger::File, Some(1)).activation(file), trial);
    assert_eq!(with(Trigger::Push, Some(1)).activation(file), trial);
    assert_eq!(
        with(Trigger::File, Some(1)).activation(insisted),
        Activation::Live
    );
    assert_eq!(with(Trigger::File, None).activation(file), Activation::Live);
    // The nodes of a cluster go live together, and a rollback must not wait.
    for trigger in [Trigger::Cluster, Trigger::Rollback, Trigger::Start] {
        assert_eq!(with(trigger, Some(1)).activation(file), Activation::Live);
    }
    let without = Case::new(Trigger::File, record());
    assert_eq!(without.activation(file), Activation::Live);
}

#[test]
fn a_rollback_overtakes_a_file_that_was_requested_before_it() {
    let before = Instant::now();
    let rollback = before + Duration::from_secs(1);
    let after = before + Duration::from_secs(2);
    let history = PluginHistory {
        gone_back: Some(rollback),
        ..record()
    };
    let case = Case::new(Trigger::File, history);
    let file = loaded(Origin::File, before);
    assert_eq!(case.activation(file), Activation::Discard);
    let live = [
        loaded(Origin::File, after),
        loaded(Origin::Operator, before),
        Loaded {
            insisted: true,
            ..file
        },
        // The rollback waits for the state, and comes after.
        Loaded {
            has_state: true,
            ..file
        },
    ];
    for loaded in live {
        assert_eq!(case.activation(loaded), Activation::Live);
    }
}
