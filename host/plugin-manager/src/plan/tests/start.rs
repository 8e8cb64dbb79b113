//! The plan at a start of the server, by the history of the earlier process.

use super::*;

#[test]
fn a_start_resumes_the_version_that_was_live_if_the_file_has_not_changed() {
    let case = Case::at_start(recalled(Some(4), true));
    let steps = vec![
        kept(1, Origin::Operator),
        kept(2, Origin::Operator),
        given(),
    ];
    assert_eq!(case.resume(content(4)), (steps, Fallback::Unchanged));
    // The version that was live is the one in the file, which needs nothing from the disk.
    let case = Case::at_start(recalled(Some(1), false));
    let steps = vec![given(), kept(2, Origin::File)];
    assert_eq!(case.resume(content(1)), (steps, Fallback::Refused));
}

#[test]
fn a_start_tries_a_changed_file_first_and_falls_back_to_earlier_versions() {
    let case = Case::at_start(recalled(Some(1), false));
    let steps = vec![given(), kept(1, Origin::File), kept(2, Origin::File)];
    assert_eq!(case.resume(content(5)), (steps, Fallback::Refused));
    let steps = vec![given(), kept(1, Origin::File), kept(2, Origin::File)];
    assert_eq!(case.resume(unreadable()), (steps, Fallback::Refused));
}

#[test]
fn a_start_with_a_rollout_tries_a_changed_file_after_the_version_that_was_live() {
    let case = Case {
        config: with_rollout(),
        ..Case::at_start(recalled(Some(1), false))
    };
    let steps = vec![kept(1, Origin::File), kept(2, Origin::File), given()];
    let fallback = Fallback::NotExamined(Some(hash(1)));
    assert_eq!(case.resume(content(5)), (steps, fallback));
}

#[test]
fn a_start_never_loads_a_file_that_was_rolled_back() {
    let case = Case::at_start(barred(5, recalled(Some(1), false)));
    let steps = vec![kept(1, Origin::Operator), kept(2, Origin::Operator)];
    assert_eq!(case.resume(content(5)), (steps, Fallback::Unchanged));
}
