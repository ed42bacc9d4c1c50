//! Every link of the pages that leads to a file of the repository leads to one that is there, and to a heading that it has.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Directories of pages. `docs/guide/src` has pages that include those of `docs`.
const PAGES: [&str; 5] = [".", "docs", "docs/guide/src", "bench", "fuzz"];

#[test]
fn every_link_between_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for page in PAGES.iter().flat_map(|dir| pages(&root.join(dir))) {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            checked += 1;
            if let Err(why) = follow(&page, link) {
                wrong.push(format!("{}: ({link}) {why}", page.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(checked > 50, "only {checked} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn pages(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The targets of `[text](target)`, outside of code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose
        .flat_map(|part| part.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
}

fn follow(page: &Path, link: &str) -> Result<(), &'static str> {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
    if !target.exists() {
        return Err("is not there");
    }
    match heading.is_empty() || headings(&target).contains(heading) {
        true => Ok(()),
        false => Err("has no such heading"),
    }
}

/// The anchors that GitHub and mdBook make of headings.
fn headings(page: &Path) -> BTreeSet<String> {
    let mut text = fs::read_to_string(page).unwrap();
    if let Some(included) = text.strip_prefix("{{#include ").and_then(|rest| rest.split_once("}}")) {
        text = fs::read_to_string(page.parent().unwrap().join(included.0)).unwrap();
    }
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    let titles = prose.iter().flat_map(|part| part.lines()).filter_map(|line| line.strip_prefix('#'));
    titles.map(|title| anchor(title.trim_start_matches('#').trim())).collect()
}

fn anchor(title: &str) -> String {
    let kept = title.to_lowercase().replace(' ', "-");
    kept.chars().filter(|&letter| letter.is_alphanumeric() || letter == '-' || letter == '_').collect()
}
