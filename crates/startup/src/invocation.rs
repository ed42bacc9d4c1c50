//! The command that starts another of Shoal's programs in the way in which this one was started.

use std::{env, path::Path};

/// The program that is all others, and what the others are called in it.
const ALL_IN_ONE: &str = "shoal";
const PARTS: [(&str, &str); 3] = [("tracker", "tracker"), ("seeder", "seed"), ("leecher", "get")];

/// The command for `program` (`leecher`), from a program whose own name is `own` (`seeder`).
pub fn command_for(program: &str, own: &str) -> String {
    let started_as = env::args_os().next().unwrap_or_default();
    let started_as = Path::new(&started_as);
    // Cargo sets this for programs that it runs.
    let is_by_cargo = env::var_os("CARGO").is_some();
    let cargo_run = |package: &str| {
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        format!("cargo run {profile}-p {package} --")
    };
    match part_of(started_as, program) {
        Some(part) if is_by_cargo => format!("{} {part}", cargo_run("shoal-cli")),
        Some(part) => format!("{} {part}", quoted(&started_as.to_string_lossy())),
        None if is_by_cargo => cargo_run(program),
        None => beside(started_as, program, own),
    }
}

/// What `program` is called in [`ALL_IN_ONE`]; one that is only there has that name already.
pub(crate) fn part_name(program: &str) -> &str {
    PARTS.iter().find_map(|&(name, part)| (name == program).then_some(part)).unwrap_or(program)
}

/// What `program` is called in the program that was started, if that is [`ALL_IN_ONE`].
fn part_of<'a>(started_as: &Path, program: &'a str) -> Option<&'a str> {
    (started_as.file_name()? == ALL_IN_ONE).then(|| part_name(program))
}

/// The path of `program` beside `started_as`, in the same form.
fn beside(started_as: &Path, program: &str, own: &str) -> String {
    let name = started_as.file_name().and_then(|name| name.to_str()).unwrap_or(own);
    // A package may name it shoal-seeder.
    let Some(prefix) = name.strip_suffix(own) else { return program.to_owned() };
    let path = started_as.with_file_name(format!("{prefix}{program}"));
    quoted(&path.to_string_lossy())
}

/// Quotes a text as one word of a shell.
fn quoted(text: &str) -> String {
    if text.chars().all(|c| c.is_alphanumeric() || "-_./+@%,:=".contains(c)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_program_that_is_all_others_each_is_a_subcommand() {
        assert_eq!(part_of(Path::new("/usr/bin/shoal"), "leecher"), Some("get"));
        assert_eq!(part_of(Path::new("shoal"), "seeder"), Some("seed"));
        assert_eq!(part_of(Path::new("shoal-seeder"), "leecher"), None);
    }

    #[test]
    fn a_program_is_named_as_the_other_was_started() {
        for (started_as, expected) in [
            ("seeder", "leecher"),
            ("./seeder", "./leecher"),
            ("target/release/seeder", "target/release/leecher"),
            ("/opt/shoal-seeder", "/opt/shoal-leecher"),
            ("/my bin/seeder", "'/my bin/leecher'"),
            ("/it's/seeder", r"'/it'\''s/leecher'"),
            ("/opt/something else", "leecher"),
            ("", "leecher"),
        ] {
            assert_eq!(beside(Path::new(started_as), "leecher", "seeder"), expected);
        }
    }
}
