//! The `shoal` program: the three programs as subcommands, and short forms of what they do besides.
//!
//! It holds no feature of its own. A subcommand is the command line of a program, of which some show only the flags that matter.

use std::{env, ffi::OsString, fs, io, path::PathBuf, process::ExitCode};

use clap::{Arg, Command, CommandFactory, value_parser};
use clap_complete::Shell;
use startup::{complete, eprint_line, parse_rest, refuse};

/// A subcommand.
struct Part {
    name: &'static str,
    about: &'static str,
    /// Its flags, as clap has them.
    command: fn() -> Command,
    /// Runs it with the words after its name.
    run: fn(Vec<OsString>) -> ExitCode,
}

/// All but `completions` and `man`.
const PARTS: [Part; 7] = [
    Part {
        name: "tracker",
        about: "Run a tracker, which knows the peers of each share",
        command: tracker::cli::Args::command,
        run: |rest| tracker::cli::main(parse_rest("shoal tracker", named, rest, tracker::cli::EXCLUSIVE)),
    },
    Part {
        name: "seed",
        about: "Serve files and directories",
        command: seeder::cli::Args::command,
        run: |rest| seeder::cli::main(parse_rest("shoal seed", named, rest, seeder::cli::EXCLUSIVE)),
    },
    Part {
        name: "get",
        about: "Fetch shares from many peers at once",
        command: leecher::cli::Args::command,
        run: |rest| leecher::cli::main(parse_rest("shoal get", named, rest, leecher::cli::EXCLUSIVE)),
    },
    Part {
        name: "list",
        about: "List the shares that trackers know",
        command: || list(leecher::cli::Args::command()),
        run: |rest| {
            let rest = ["--list".into()].into_iter().chain(rest);
            leecher::cli::main(parse_rest("shoal list", list, rest, leecher::cli::EXCLUSIVE))
        },
    },
    Part {
        name: "wait",
        about: "Wait until enough hosts have all of a share",
        command: leecher::barrier::Args::command,
        run: |rest| leecher::barrier::main(parse_rest("shoal wait", |command| command, rest, &[])),
    },
    Part {
        name: "check",
        about: CHECK,
        command: || check(leecher::cli::Args::command()),
        run: |rest| {
            let rest = ["--check".into()].into_iter().chain(rest);
            leecher::cli::main(parse_rest("shoal check", check, rest, leecher::cli::EXCLUSIVE))
        },
    },
    Part {
        name: "link",
        about: "Print the link of a file or directory, and serve nothing",
        command: || link(seeder::cli::Args::command()),
        run: |rest| {
            seeder::cli::print_only_links(parse_rest("shoal link", link, rest, seeder::cli::EXCLUSIVE))
        },
    },
];

const CHECK: &str = "Prove a copy that is here, and change nothing";

/// Flags of the leecher that `check` shows.
const OF_CHECK: &[&str] = &[
    "targets",
    "trackers",
    "peers",
    "no_discovery",
    "only",
    "output",
    "dir",
    "times",
    "timeout",
    "json",
    "quiet",
    "help",
    "version",
];

/// Flags of the leecher that `list` shows.
const OF_LIST: &[&str] =
    &["targets", "sort", "long", "trackers", "no_discovery", "bind", "json", "help", "version"];

/// Flags of the seeder that `link` shows.
const OF_LINK: &[&str] = &[
    "paths",
    "name",
    "exclude",
    "strict",
    "symlinks",
    "times",
    "trackers",
    "bind",
    "no_cache",
    "cache_dir",
    "json",
    "help",
    "version",
];

/// What the programs are called here, in their examples.
const NAMES: [(&str, &str); 4] = [
    ("leecher --list", "shoal list"),
    ("leecher", "shoal get"),
    ("seeder", "shoal seed"),
    ("  tracker", "  shoal tracker"),
];

fn main() -> ExitCode {
    let mut words = env::args_os();
    let _own_name = words.next();
    let first = words.next();
    let part = first.as_ref().and_then(|first| PARTS.iter().find(|part| first == part.name));
    if let Some(part) = part {
        return (part.run)(words.collect());
    }
    // Everything else: help, version, completions, and what is wrong.
    let matches = all().try_get_matches().unwrap_or_else(|error| refuse(&all(), &error));
    match matches.subcommand() {
        Some(("completions", matches)) => {
            let shell = *matches.get_one::<Shell>("shell").unwrap_or(&Shell::Bash);
            clap_complete::generate(shell, &mut all(), "shoal", &mut io::stdout());
            ExitCode::SUCCESS
        }
        Some(("man", matches)) => match matches.get_one::<PathBuf>("dir").map(write_man_pages) {
            Some(Err(error)) => {
                eprint_line(format_args!("error: the manual pages cannot be written: {error}"));
                startup::ExitCode::Io.into()
            }
            _ => ExitCode::SUCCESS,
        },
        // The name of a part was the first word, or clap has refused the command line.
        _ => ExitCode::FAILURE,
    }
}

/// Writes `shoal.1`, and a page for each subcommand, into a directory.
fn write_man_pages(dir: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(all(), dir)
}

/// The whole command line.
fn all() -> Command {
    let parts = PARTS.iter().map(|part| complete(named((part.command)())).name(part.name).about(part.about));
    let shell = Arg::new("shell").value_name("SHELL").value_parser(value_parser!(Shell)).required(true);
    let completions = Command::new("completions")
        .about("Print a script that completes shoal's command line in a shell")
        .arg(shell.help("The shell"));
    let dir = Arg::new("dir").value_name("DIR").value_parser(value_parser!(PathBuf)).required(true);
    let man = Command::new("man")
        .about("Write the manual pages into a directory")
        .hide(true)
        .arg(dir.help("The directory, which is created if it does not exist"));
    Command::new("shoal")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Move a file or directory from one machine to many, and prove every byte")
        .after_help(
            "Start with:\n  shoal tracker           on one machine\n  shoal seed disk.img     where the file is: \
             prints the command for the others",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(parts)
        .subcommand(completions)
        .subcommand(man)
}

/// The command of a program, as a subcommand here: its examples name this program.
fn named(command: Command) -> Command {
    let examples = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let examples = NAMES.iter().fold(examples, |text, (old, new)| text.replace(old, new));
    command.after_long_help(examples)
}

fn list(command: Command) -> Command {
    let patterns = |arg: Arg| {
        let help = "Patterns of names, as in '*.img', or first digits of infohashes [default: all]";
        arg.value_name("PATTERN").help(help).long_help(help)
    };
    let shown = |arg: Arg| arg.hide_short_help(false);
    only(command, OF_LIST)
        .about("List the shares that trackers know")
        .mut_arg("targets", patterns)
        .mut_arg("sort", shown)
        .mut_arg("long", shown)
}

fn check(command: Command) -> Command {
    only(command, OF_CHECK).about(CHECK)
}

fn link(command: Command) -> Command {
    only(command, OF_LINK).about("Print the link of a file or directory, and serve nothing")
}

/// Shows only these flags, and those of the log.
fn only(command: Command, shown: &[&str]) -> Command {
    const LOGS: [&str; 4] = ["verbose", "log_file", "no_log_file", "log_format"];
    let hides = |arg: &Arg| !shown.contains(&arg.get_id().as_str()) && !LOGS.contains(&arg.get_id().as_str());
    command.mut_args(|arg| if hides(&arg) { arg.hide(true) } else { arg }).after_long_help("")
}
