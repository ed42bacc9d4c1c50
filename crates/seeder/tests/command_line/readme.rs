//! A program's description of its flags: `--help` has the same as docs/guide/src/flags.md, and `-h` fits a screen.

use std::collections::BTreeSet;

/// Size of a terminal.
const ROWS: usize = 24;
const COLUMNS: usize = 80;

/// Checks that every flag in a program's `--help` is in its section of the guide, or in what is said of all programs, and
/// that every flag in the tables there is in `--help`.
pub(crate) fn assert_explains(program: &str, help: &str) {
    let guide = include_str!("../../../../docs/guide/src/flags.md");
    let programs = guide.split_once("\n## The programs\n").unwrap().1;
    let (of_all, _) = programs.split_once("\n### ").unwrap();
    let (_, section) = programs.split_once(&format!("\n### {program}\n")).unwrap();
    let section = section.split("\n##").next().unwrap();
    let flags = help.split([' ', ',', '\n']).filter(|word| word.starts_with("--") && word.len() > 2);
    // clap's mark of a flag that may be repeated, and the end of a sentence
    let flags: BTreeSet<_> =
        flags.map(|flag| flag.split(['[', '=']).next().unwrap_or(flag).trim_end_matches('.')).collect();
    for flag in flags.iter().filter(|flag| !["--help", "--version"].contains(flag)) {
        let explained = |text: &str| [" ", "`"].iter().any(|end| text.contains(&format!("`{flag}{end}")));
        assert!(
            explained(section) || explained(of_all),
            "docs/guide/src/flags.md does not explain {flag} of {program}"
        );
    }
    let rows = [of_all, section].into_iter().flat_map(str::lines).filter(|line| line.starts_with("| `"));
    let names = rows.filter_map(|row| row.split(" | ").next()).flat_map(|names| names.split(['`', ' ']));
    let explained: Vec<_> = names.filter(|name| name.starts_with("--")).collect();
    assert!(explained.len() > 5, "no flags of {program} in docs/guide/src/flags.md");
    for flag in explained {
        assert!(flags.contains(flag), "{program} --help does not show {flag}");
    }
}

/// Checks that a program's `-h` is a summary: it fits a screen and names no environment variables.
pub(crate) fn assert_fits_a_screen(summary: &str) {
    assert!(summary.contains("--version") && summary.contains("see more with '--help'"), "{summary}");
    assert!(summary.lines().count() <= ROWS, "{summary}");
    assert!(summary.lines().all(|line| line.chars().count() <= COLUMNS), "{summary}");
    assert!(!summary.contains("SHOAL_"), "{summary}");
}
