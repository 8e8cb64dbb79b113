//! Builds of one plugin that behave alike but are different versions to a server.

/// Appends a custom section (id 0, size, name, content), which WebAssembly allows anywhere and never runs.
pub(crate) fn numbered(component: &[u8], number: u32) -> Vec<u8> {
    const NAME: &[u8] = b"bench";
    let content = number.to_le_bytes();
    // One byte of LEB128 each: both are below 128.
    let section = [
        &[0, (1 + NAME.len() + content.len()) as u8, NAME.len() as u8],
        NAME,
        &content,
    ]
    .concat();
    [component, &section].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_differ_in_a_well_formed_custom_section() {
        let (one, two) = (numbered(b"component", 1), numbered(b"component", 2));
        assert_ne!(one, two);
        let section = one
            .strip_prefix(b"component")
            .expect("the component stays as it was");
        assert_eq!(section[0], 0);
        assert_eq!(usize::from(section[1]), section.len() - 2);
        assert_eq!(&section[3..3 + usize::from(section[2])], b"bench");
    }
}
