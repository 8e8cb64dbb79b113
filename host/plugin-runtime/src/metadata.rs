//! A component's metadata: the name and version that `wasm-tools metadata add` and toolchains write into custom
//! sections. It is read from the outermost component only, and never trusted for anything but reports.

use super::log::clean;

/// The first bytes of components and modules, without the version and layer that follow.
const MAGIC: &[u8] = b"\0asm";
const HEADER_BYTES: usize = 8;

/// The ID of a custom section, and of the part of `component-name` that holds the component's own name.
const CUSTOM_SECTION: u8 = 0;
const OWN_NAME: u8 = 0;

/// The metadata of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its name.
    pub name: Option<String>,
    /// Its version, which its author chose.
    pub version: Option<String>,
}

/// Reads the metadata of a component; empty if the bytes are malformed.
pub(super) fn read(component: &[u8]) -> Metadata {
    let mut metadata = Metadata::default();
    let mut rest = match component.strip_prefix(MAGIC) {
        Some(_) => component.get(HEADER_BYTES..).unwrap_or_default(),
        None => return metadata,
    };
    while let Some((id, body)) = take_section(&mut rest) {
        if id != CUSTOM_SECTION {
            continue;
        }
        let mut body = body;
        match take_sized(&mut body) {
            Some(b"version") => metadata.version = text(body),
            Some(b"component-name") => {
                while let Some((id, mut part)) = take_section(&mut body) {
                    if id == OWN_NAME {
                        metadata.name = take_sized(&mut part).and_then(text);
                    }
                }
            }
            _ => {}
        }
    }
    metadata
}

/// Takes an ID of one byte, a length, and as many bytes.
fn take_section<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (id, rest) = bytes.split_first()?;
    *bytes = rest;
    Some((*id, take_sized(bytes)?))
}

/// Takes a length (LEB128, 32 bits), and as many bytes.
fn take_sized<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0_u64;
    for index in 0..5 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            *bytes = rest;
            return Some(taken);
        }
    }
    None
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = clean(std::str::from_utf8(bytes).ok()?);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    fn section(name: &str, content: &[u8]) -> Vec<u8> {
        let body = [
            &[u8::try_from(name.len()).unwrap()],
            name.as_bytes(),
            content,
        ]
        .concat();
        let length = body.len();
        // Two bytes, as encoders write for a length of 128 and more.
        let length = [(length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
        [&[CUSTOM_SECTION], length.as_slice(), &body].concat()
    }

    #[test]
    fn name_and_version_are_read_from_custom_sections() {
        let bytes = [
            COMPONENT,
            &[7, 2, 1, 2],
            &section("version", b"1.2.3-beta"),
            &section("component-name", b"\x01\x02ab\x00\x05\x04chat"),
        ]
        .concat();
        let metadata = read(&bytes);
        assert_eq!(metadata.version.as_deref(), Some("1.2.3-beta"));
        assert_eq!(metadata.name.as_deref(), Some("chat"));
    }

    #[test]
    fn damaged_metadata_is_none() {
        let good = [COMPONENT, &section("version", b"1.2.3")].concat();
        assert!(read(&good).version.is_some());
        for end in 0..good.len() {
            assert_eq!(read(&good[..end]), Metadata::default(), "{end}");
        }
        for content in [&b"\xff\xfe"[..], b"", b"\n"] {
            let bytes = [COMPONENT, &section("version", content)].concat();
            assert_eq!(read(&bytes).version, None, "{content:?}");
        }
    }
}
