//! Every decoder has a fuzz target.
//!
//! The decoders are found in the sources, by the names that Rust and this project give them. Each fuzz target names those that it
//! feeds, in lines `//! Decodes: FILE: ITEM`. The two lists must be the same, so a new decoder without a target fails this test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// How functions that decode are called.
const DECODERS: [&str; 5] = ["decode", "parse", "from_bytes", "borrow_", "peek_"];

/// Traits that decode.
const TRAITS: [&str; 3] = ["FromStr for", "Decoder for", "TryFrom<"];

/// What only the user of a program types, and so no stranger. The crate `evil` is a program for tests.
const TYPED: [&str; 13] = [
    "evil/src/",
    "leecher/src/cli/",
    "leecher/src/target.rs",
    "peer/src/rate_limit.rs",
    "seeder/src/cli.rs",
    "shoal/src/fetch.rs",
    "startup/src/",
    "store/src/exclusion.rs",
    "store/src/wanted.rs",
    "tracker-load/src/cli.rs",
    "tracker/src/admission.rs",
    "tracker/src/cli.rs",
    "tracker/src/limit_args.rs",
];

/// What the operator asks for over HTTP. It is read after the token was shown, so no stranger sends it either, and all of it with
/// serde_json.
const BEHIND_THE_TOKEN: [&str; 4] =
    ["leecher/src/seen.rs", "seeder/src/seen.rs", "tracker/src/seen.rs", "web/src/"];

/// The crate whose types are decoded by serde, behind the decoders above.
const WITH_SERDE: &str = "proto/src/";

#[test]
fn every_decoder_has_a_fuzz_target() {
    let decoders = decoders();
    assert!(decoders.len() > 15, "the search finds what there is: {decoders:?}");
    let fuzzed: BTreeSet<String> = targets().into_values().flatten().collect();
    let missing: Vec<_> = decoders.difference(&fuzzed).collect();
    assert!(missing.is_empty(), "no target in fuzz/fuzz_targets decodes {missing:#?}");
    let gone: Vec<_> = fuzzed.difference(&decoders).collect();
    assert!(gone.is_empty(), "the targets name decoders that are not there: {gone:#?}");
}

#[test]
fn every_fuzz_target_is_built_and_has_a_corpus() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for target in targets().into_keys() {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")),
            "{target} in fuzz/Cargo.toml"
        );
        let corpus = root().join("fuzz/corpus").join(&target);
        let inputs = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
        assert!(inputs.count() > 0, "{} is empty", corpus.display());
    }
}

#[test]
fn only_proto_decodes_with_serde() {
    for (file, source) in sources() {
        let derives = source.lines().any(|line| line.contains("derive(") && line.contains("Deserialize"));
        let is_ours = BEHIND_THE_TOKEN.iter().any(|behind| file.starts_with(behind));
        assert!(
            !derives || is_ours || file.starts_with(WITH_SERDE),
            "{file} decodes with serde: it needs a fuzz target"
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The decoders of the workspace, as `FILE: ITEM`.
fn decoders() -> BTreeSet<String> {
    let sources =
        sources().into_iter().filter(|(file, _)| !TYPED.iter().any(|typed| file.starts_with(typed)));
    let found = sources.flat_map(|(file, source)| {
        let items: Vec<_> = source.lines().filter_map(decoder).collect();
        items.into_iter().map(move |item| format!("{file}: {item}"))
    });
    found.collect()
}

/// The decoder that begins on this line, if it can be called from other modules. Private ones are called by these.
fn decoder(line: &str) -> Option<String> {
    let line = line.trim_start();
    if line.starts_with("impl") && TRAITS.iter().any(|decodes| line.contains(decodes)) {
        return Some(line.trim_end_matches([' ', '{']).to_owned());
    }
    let function = line.strip_prefix("pub fn ").or_else(|| line.strip_prefix("pub(crate) fn "))?;
    let name = function.split(['(', '<']).next()?;
    DECODERS.iter().any(|decodes| name.starts_with(decodes)).then(|| format!("fn {name}"))
}

/// The sources of all crates without their tests, by their paths below `crates`.
fn sources() -> BTreeMap<String, String> {
    let crates = root().join("crates");
    let mut sources = BTreeMap::new();
    let mut directories: Vec<PathBuf> =
        entries(&crates).into_iter().map(|package| package.join("src")).filter(|src| src.is_dir()).collect();
    while let Some(directory) = directories.pop() {
        for path in entries(&directory) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                directories.extend((name != "tests").then_some(path));
            } else if name.ends_with(".rs") && name != "tests.rs" && name != "fuzzing.rs" {
                let source = fs::read_to_string(&path).unwrap();
                let without_tests = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let file = path.strip_prefix(&crates).unwrap().to_str().unwrap();
                sources.insert(file.to_owned(), without_tests.to_owned());
            }
        }
    }
    sources
}

/// What each fuzz target decodes.
fn targets() -> BTreeMap<String, Vec<String>> {
    let target = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let source = fs::read_to_string(&path).unwrap();
        let decodes = source.lines().filter_map(|line| line.strip_prefix("//! Decodes: "));
        (name, decodes.map(str::to_owned).collect())
    };
    // A directory beside a target has the target's modules.
    let files = entries(&root().join("fuzz/fuzz_targets")).into_iter().filter(|path| path.is_file());
    files.map(target).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}
