//! Checks that the cases cover the specification.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::cases;
use crate::workspace::Workspace;

/// The numbers of the sentences in the specification.
fn sentences(text: &str) -> BTreeSet<String> {
    let number = |line: &str| {
        let (number, _) = line.split_once(' ')?;
        let (section, sentence) = number.split_once('.')?;
        let is_number =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        (is_number(section) && is_number(sentence)).then(|| number.to_owned())
    };
    text.lines().filter_map(number).collect()
}

#[test]
fn every_sentence_of_the_specification_is_tested_or_says_why_not() {
    let workspace = Workspace::find().expect("this workspace");
    let text =
        fs::read_to_string(workspace.root().join("clients/SPEC.md")).expect("the specification");
    // The table of section 3 counts as a sentence.
    let mut sentences = sentences(&text);
    sentences.insert("3".to_owned());
    let cases = cases::read(workspace.root()).expect("the cases");
    let covered: BTreeSet<_> = cases
        .cases
        .iter()
        .flat_map(|case| case.covers.iter().cloned())
        .collect();
    let unknown: Vec<_> = covered
        .iter()
        .chain(cases.untested.keys())
        .filter(|number| !sentences.contains(*number))
        .collect();
    assert!(unknown.is_empty(), "no such sentences: {unknown:?}");
    let untested: Vec<_> = sentences
        .iter()
        .filter(|number| !covered.contains(*number) && !cases.untested.contains_key(*number))
        .collect();
    assert!(
        untested.is_empty(),
        "neither tested nor listed in `untested`: {untested:?}"
    );
    let both: Vec<_> = cases
        .untested
        .keys()
        .filter(|number| covered.contains(*number))
        .collect();
    assert!(
        both.is_empty(),
        "tested, and yet listed in `untested`: {both:?}"
    );
    assert!(
        cases.untested.values().all(|reason| reason.len() > 10),
        "reasons are sentences"
    );
}

#[test]
fn the_names_of_cases_are_unique_and_sentences() {
    let workspace = Workspace::find().expect("this workspace");
    let cases = cases::read(workspace.root()).expect("the cases").cases;
    let mut by_name = BTreeMap::new();
    for case in &cases {
        *by_name.entry(&case.name).or_insert(0) += 1;
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(
            case.name.bytes().all(is_word) && case.name.contains('_'),
            "{}",
            case.name
        );
        assert!(
            !case.covers.is_empty() && !case.steps.is_empty(),
            "{}",
            case.name
        );
    }
    let doubled: Vec<_> = by_name.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}
