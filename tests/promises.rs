//! Every promise of docs/security.md names tests, and these exist.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Where tests are.
const ROOTS: [&str; 3] = ["crates", "shuttle/tests", "tests"];

/// How the head of a table of promises begins.
const HEAD: &str = "| promise | test |";

/// Words of a name that is a test's, at least. Other names with underscores are shorter.
const FEWEST_WORDS: usize = 4;

#[test]
fn every_test_that_the_page_of_promises_names_exists() {
    let (page, sources) = (page(), sources());
    let named: Vec<_> = page.lines().flat_map(named).collect();
    assert!(named.len() > 40, "the search finds what there is: {named:?}");
    let is_there = |&(package, name): &(Option<&str>, &str)| {
        let mut files = sources.iter().filter(|(file, _)| is_of(file, package));
        files.any(|(_, source)| has_test(source, name))
    };
    let missing: Vec<_> = named.iter().filter(|test| !is_there(test)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:#?}");
}

#[test]
fn every_promise_names_a_test() {
    let page = page();
    let tables: Vec<&str> = page.split(HEAD).skip(1).collect();
    assert_eq!(tables.len(), 2);
    for table in tables {
        // The rest of the head, and the line below it.
        let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
        assert!(rows.len() > 10, "{rows:?}");
        let without: Vec<_> = rows.iter().filter(|row| named(row).is_empty()).collect();
        assert!(without.is_empty(), "promises without a test: {without:#?}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/security.md")).unwrap()
}

/// The tests that a line names, each with its package if that is in front of it.
fn named(line: &str) -> Vec<(Option<&str>, &str)> {
    let code = line.split('`').skip(1).step_by(2);
    let tests = code.filter_map(|code| {
        let (package, name) = code.split_once(' ').map_or((None, code), |(p, name)| (Some(p), name));
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        (is_name && name.split('_').count() >= FEWEST_WORDS).then_some((package, name))
    });
    tests.collect()
}

/// Whether a file is of a package; `None` for any.
fn is_of(file: &str, package: Option<&str>) -> bool {
    match package {
        None => true,
        Some("shoal-system") => file.starts_with("tests/"),
        Some(package) => file.starts_with(&format!("crates/{package}/")),
    }
}

/// Whether a test of this name is in a source.
fn has_test(source: &str, name: &str) -> bool {
    let Some(at) = source.find(&format!("fn {name}(")) else { return false };
    let before = source[..at].trim_end_matches("async ").trim_end();
    let attributes = before.lines().rev().map(str::trim).take_while(|line| line.starts_with("#["));
    attributes.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

/// The sources with tests, by their paths.
fn sources() -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    let mut directories: Vec<PathBuf> = ROOTS.map(|directory| root().join(directory)).into();
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                sources.insert(file, fs::read_to_string(&path).unwrap());
            }
        }
    }
    sources
}
