//! Checks that the messages of one sender reach one receiver exactly once and in order.

/// Gaps that are remembered per sender and receiver. Beyond this limit, a late message counts as duplicated instead of
/// reordered.
const GAPS_MAX: usize = 1024;

/// The sequence numbers that one receiver saw from one sender, which counts from 0.
#[derive(Debug, Default)]
pub(super) struct SequenceCheck {
    /// The number expected next if everything is in order.
    next: u64,
    /// Distinct messages that arrived.
    pub(super) received: u64,
    /// Messages that arrived again.
    pub(super) duplicated: u64,
    /// Messages that arrived after a later one.
    pub(super) reordered: u64,
    /// Numbers that were skipped and have not arrived yet, as half-open ranges.
    gaps: Vec<(u64, u64)>,
}

impl SequenceCheck {
    /// Records a message.
    pub(super) fn observe(&mut self, number: u64) {
        if number == self.next {
            self.next += 1;
            self.received += 1;
        } else if number > self.next {
            if self.gaps.len() < GAPS_MAX {
                self.gaps.push((self.next, number));
            }
            self.next = number + 1;
            self.received += 1;
        } else if self.fill_gap(number) {
            self.reordered += 1;
            self.received += 1;
        } else {
            self.duplicated += 1;
        }
    }

    fn fill_gap(&mut self, number: u64) -> bool {
        let mut gaps = self.gaps.iter();
        let Some(index) = gaps.position(|&(start, end)| (start..end).contains(&number)) else {
            return false;
        };
        let (start, end) = self.gaps.swap_remove(index);
        let parts = [(start, number), (number + 1, end)];
        self.gaps
            .extend(parts.into_iter().filter(|(start, end)| start < end));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_late_messages_and_duplicates_are_distinguished() {
        for (numbers, expected) in [
            (&[0, 1, 2, 3][..], (4, 0, 0)),
            (&[0, 3, 4], (3, 0, 0)),
            (&[2], (1, 0, 0)),
            (&[0, 4, 2, 1, 3, 5], (6, 0, 3)),
            (&[0, 1, 1, 0, 2], (3, 2, 0)),
            (&[0, 3, 1, 1], (3, 1, 1)),
        ] {
            let mut check = SequenceCheck::default();
            numbers.iter().for_each(|&number| check.observe(number));
            let found = (check.received, check.duplicated, check.reordered);
            assert_eq!(found, expected, "{numbers:?}");
        }
    }
}
