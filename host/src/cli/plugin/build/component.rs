//! Turns a core module, as the compilers of Go and C produce it, into a component.
//!
//! The names of its exports show which interfaces of the package such a module implements, for example
//! `signalbox:plugin/validation@1.0.0#validate`. So nothing has to be generated, and no other tool is needed.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, anyhow, bail};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap, WorldId};

/// The interfaces between server and plugins: the files of the WIT package, by name.
pub(in crate::cli::plugin) const WIT: [(&str, &str); 4] = [
    ("types.wit", include_str!("../../../../../wit/types.wit")),
    (
        "exports.wit",
        include_str!("../../../../../wit/exports.wit"),
    ),
    (
        "imports.wit",
        include_str!("../../../../../wit/imports.wit"),
    ),
    ("worlds.wit", include_str!("../../../../../wit/worlds.wit")),
];

/// The adapter for WASI preview 1. `preview1.wat` is its source.
const PREVIEW1: &[u8] = include_bytes!("preview1.wasm");

/// The prefix of the exports that belong to the package.
const EXPORT_PREFIX: &str = "signalbox:plugin/";

/// Turns `module` into a component.
///
/// # Errors
/// Returns an error if it exports nothing of the package, or if its exports do not match the package.
pub(super) fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let interfaces = interfaces(module)?;
    let exports = interfaces
        .iter()
        .map(|name| format!("export {name};"))
        .collect::<String>();
    let module =
        with_world(module, "plugin", &exports).context("the module does not fit its interfaces")?;
    let adapter = with_world(PREVIEW1, "adapter", "").context("the adapter of WASI preview 1")?;
    ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| {
            encoder
                .validate(true)
                .adapter("wasi_snapshot_preview1", &adapter)
        })
        .and_then(|mut encoder| encoder.encode())
        .context("the module cannot be made a component")
}

/// The interfaces that `module` implements, such as `signalbox:plugin/events@1.0.0`.
fn interfaces(module: &[u8]) -> anyhow::Result<BTreeSet<String>> {
    let mut interfaces = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(exports) =
            payload.context("this is not a WebAssembly module")?
        {
            for export in exports {
                let name = export?.name;
                if let Some((interface, _)) = name.split_once('#')
                    && interface.starts_with(EXPORT_PREFIX)
                {
                    interfaces.insert(interface.to_owned());
                }
            }
        }
    }
    if interfaces.is_empty() {
        bail!(
            "it exports no interface of signalbox:plugin; in Go import the package of one, in C name one with its macro"
        );
    }
    Ok(interfaces)
}

/// Returns `module` with the metadata about its imports and exports that the encoder needs.
fn with_world(module: &[u8], package: &str, exports: &str) -> anyhow::Result<Vec<u8>> {
    let (resolve, world) = world(package, exports)?;
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

/// Builds a world with all imports that the server offers, and with `exports`. Its package has its own name, because
/// differing worlds of the same name cannot be combined.
fn world(package: &str, exports: &str) -> anyhow::Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let mut interfaces = SourceMap::default();
    for (name, text) in WIT {
        interfaces.push(Path::new(name), text);
    }
    let interfaces = interfaces
        .parse()
        .map_err(|(_, error)| anyhow!("{error:?}"))?;
    resolve.push_group(interfaces)?;
    let text = format!(
        "package build:{package}; world built {{ include signalbox:plugin/imports@1.0.0; {exports} }}"
    );
    let built = resolve.push_str("built.wit", &text)?;
    let world = resolve.select_world(&[built], None)?;
    Ok((resolve, world))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The adapter is kept in binary form, so that building the server needs no assembler.
    #[test]
    fn the_adapter_is_made_of_its_source() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/plugin/build");
        let made = wat::parse_file(folder.join("preview1.wat")).expect("a module");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(folder.join("preview1.wasm"), &made).expect("a folder to write to");
        }
        let kept = std::fs::read(folder.join("preview1.wasm")).expect("it is there");
        assert!(made == kept, "run this test with UPDATE_SNAPSHOTS=1");
    }

    #[test]
    fn a_module_of_the_package_becomes_a_component_and_another_does_not() {
        let module = |wat: &str| wat::parse_str(wat).expect("a module");
        let fits = module(
            r#"(module
                (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 8)
                (func (export "signalbox:plugin/lifecycle@1.0.0#init") (param i32 i32) (result i32)
                    (drop (call $yield)) i32.const 0)
                (func (export "signalbox:plugin/lifecycle@1.0.0#self-test") (result i32) i32.const 0))"#,
        );
        let component = encode(&fits).expect("a component");
        assert!(component.starts_with(b"\0asm\x0d\0\x01\0"));
        let nothing = encode(&module("(module)")).expect_err("it exports nothing");
        assert!(
            nothing.to_string().contains("exports no interface"),
            "{nothing}"
        );
        let half = module(
            r#"(module (func (export "signalbox:plugin/lifecycle@1.0.0#self-test") (result i32) i32.const 0))"#,
        );
        let half = format!("{:#}", encode(&half).expect_err("init is missing"));
        assert!(half.contains("init"), "{half}");
    }
}
