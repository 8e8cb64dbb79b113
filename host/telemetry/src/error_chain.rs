//! Errors as text.

use std::{error::Error, iter::successors};

/// The error and its causes, outermost first.
pub fn causes<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// The texts of the error and its causes, separated by colons.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use std::{io, num::ParseIntError};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the count cannot be read")]
    struct Outer(#[source] ParseIntError);

    #[test]
    fn an_error_is_followed_by_its_causes() {
        let cause = "x".parse::<u8>().unwrap_err();
        let expected = format!("the count cannot be read: {cause}");
        assert_eq!(with_causes(&Outer(cause)), expected);
        assert_eq!(with_causes(&io::Error::other("alone")), "alone");
    }
}
