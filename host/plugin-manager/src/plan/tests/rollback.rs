//! Rollbacks: by an operator, and automatic ones.

use super::*;

#[test]
fn a_rollback_leads_to_the_latest_version_that_was_not_rolled_back_itself() {
    let case = Case::new(Trigger::Rollback, record());
    let to = |to: Option<&str>| case.observed().plan_rollback(to);
    let load = |version| Plan::Load(LoadPlan::new(vec![kept(version, Origin::Operator)]));
    assert_eq!(to(None).unwrap(), load(2));
    // By name, also to a version that was rolled back.
    let named = hash(3).to_string();
    assert_eq!(to(Some(&named)).unwrap(), load(3));
    assert_eq!(to(Some(&named[..12].to_uppercase())).unwrap(), load(3));
    let live = hash(1).to_string();
    assert_eq!(to(Some(&live)).unwrap(), Plan::Keep(Unchanged::Live));
}

#[test]
fn a_rollback_to_a_version_that_does_not_exist_is_an_error() {
    let case = Case::new(Trigger::Rollback, record());
    let unknown = hash(9).to_string();
    let too_short = &hash(3).to_string()[..11];
    for to in [&unknown, too_short, ""] {
        let error = case.observed().plan_rollback(Some(to)).unwrap_err();
        assert!(matches!(error, ChangeError::NoSuchVersion(_)), "{error}");
    }
    let first = Case::new(Trigger::Rollback, PluginHistory::default());
    let error = first.observed().plan_rollback(None).unwrap_err();
    assert!(matches!(error, ChangeError::NoEarlierVersion), "{error}");
}

#[test]
fn a_rollback_withdraws_the_version_on_trial_first() {
    let case = Case {
        on_trial: Some(4),
        ..Case::new(Trigger::Rollback, record())
    };
    let plan = |to: Option<&str>| case.observed().plan_rollback(to).unwrap();
    assert_eq!(plan(None), Plan::Withdraw);
    let named = hash(2).to_string();
    assert!(matches!(plan(Some(&named)), Plan::Load(_)));
}

#[test]
fn an_automatic_rollback_tries_every_good_version() {
    let mut history = record();
    history.entries.push_back(entry(4, ended(false)));
    let case = Case::new(Trigger::Probation, history);
    let steps = [2, 4].map(|version| kept(version, Origin::Operator));
    assert_eq!(case.observed().plan_automatic_rollback().steps, steps);
}
