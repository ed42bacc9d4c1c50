//! README.md explains every flag.

/// Checks that every flag in a program's `--help` is in its section of README.md, or in what is said of all programs.
pub(crate) fn assert_explains(program: &str, help: &str) {
    let readme = include_str!("../../../../README.md");
    let programs = readme.split_once("\n## The programs\n").unwrap().1;
    let (of_all, _) = programs.split_once("\n### ").unwrap();
    let (_, section) = programs.split_once(&format!("\n### {program}\n")).unwrap();
    let section = section.split("\n##").next().unwrap();
    let flags = help.split([' ', ',', '\n']).filter(|word| word.starts_with("--") && word.len() > 2);
    let mut count = 0;
    for flag in flags.filter(|flag| !["--help", "--version"].contains(flag)) {
        count += 1;
        // clap's mark of a flag that may be repeated
        let flag = flag.trim_end_matches('.');
        let explained = |text: &str| [" ", "`"].iter().any(|end| text.contains(&format!("`{flag}{end}")));
        assert!(explained(section) || explained(of_all), "README.md does not explain {flag} of {program}");
    }
    assert!(count > 3, "no flags in {help}");
}
