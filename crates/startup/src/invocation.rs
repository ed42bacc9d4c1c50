//! The command that starts another of Shoal's programs in the way in which this one was started.

use std::{env, path::Path};

/// The command for `program` (`leecher`), from a program whose own name is `own` (`seeder`).
pub fn command_for(program: &str, own: &str) -> String {
    // Cargo sets this for programs that it runs.
    if env::var_os("CARGO").is_some() {
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        return format!("cargo run {profile}-p {program} --");
    }
    let started_as = env::args_os().next().unwrap_or_default();
    beside(Path::new(&started_as), program, own)
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
