//! Checks that the messages of one sender reach one receiver exactly once and in order.

/// Gaps that are remembered per sender and receiver. Beyond this limit, a late message counts as duplicated instead of
/// reordered.
const GAPS_MAX: usize = 1024;

/// The sequence numbers that one receiver saw from one sender, which counts from 0.
#[derive(Debug, Default)]
pub(super) struct SequenceCheck {
    /// The number expected next if everything is in order.
    next: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
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

    /// Distinct messages that arrived.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Messages that arrived again.
    pub(super) fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Messages that arrived after a later one.
    pub(super) fn reordered(&self) -> u64 {
        self.reordered
    }

    fn fill_gap(&mut self, number: u64) -> bool {
        let Some(index) = self
            .gaps
            .iter()
            .position(|&(start, end)| (start..end).contains(&number))
        else {
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

    fn observe(numbers: &[u64]) -> (u64, u64, u64) {
        let mut check = SequenceCheck::default();
        numbers.iter().for_each(|&number| check.observe(number));
        (check.received(), check.duplicated(), check.reordered())
    }

    #[test]
    fn messages_in_order_are_only_counted() {
        assert_eq!(observe(&[0, 1, 2, 3]), (4, 0, 0));
    }

    #[test]
    fn a_gap_is_missing_from_the_received_ones() {
        assert_eq!(observe(&[0, 3, 4]), (3, 0, 0));
        assert_eq!(observe(&[2]), (1, 0, 0));
    }

    #[test]
    fn a_late_message_is_reordered_and_a_second_copy_duplicated() {
        assert_eq!(observe(&[0, 4, 2, 1, 3, 5]), (6, 0, 3));
        assert_eq!(observe(&[0, 1, 1, 0, 2]), (3, 2, 0));
        assert_eq!(observe(&[0, 3, 1, 1]), (3, 1, 1));
    }
}
