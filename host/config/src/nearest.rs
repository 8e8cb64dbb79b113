//! Finds the name that was probably intended instead of a misspelled one.

/// The candidate that was probably intended: at most a third of its characters may differ, and one always may.
pub(super) fn nearest<S: AsRef<str>>(
    name: &str,
    candidates: impl IntoIterator<Item = S>,
) -> Option<S> {
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(name, candidate.as_ref()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= (candidate.as_ref().chars().count() / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::{
        super::keys::{SECTIONS, names},
        *,
    };

    #[test]
    fn nearest_finds_typing_mistakes_and_nothing_else() {
        let limits = || names("limits");
        assert_eq!(nearest("frame_bytes_mx", limits()), Some("frame_bytes_max"));
        assert_eq!(nearest("conections_max", limits()), Some("connections_max"));
        assert_eq!(nearest("plugin", SECTIONS), Some("plugins"));
        assert_eq!(nearest("games", SECTIONS), None);
        assert_eq!(nearest("", SECTIONS), None);
    }
}
