//! Reading a command line whose flags may also come from the environment.
//!
//! `-h` is a summary for one screen: the usual flags, one line each. `--help` has every flag with its environment variable.
//! A program marks its other flags with `hide_short_help`.

use std::{env, ffi::OsString, iter, net::IpAddr};

use clap::{
    Arg, ArgMatches, Command, CommandFactory, Error, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use crate::{console::eprint_line, escape::escape_lines};

/// Maximum columns of a help text.
const HELP_WIDTH: usize = 80;

/// Flags of [`crate::LogArgs`] that exclude each other.
const LOGS: &[(&str, &str)] = &[("no_log_file", "log_file")];

/// Reads the command line, or ends the program with a usage error.
///
/// `exclusive` names flags that exclude each other. Two of them on the command line are an error. One on the command line
/// wins over one from the environment. If both are from the environment, the first wins.
pub fn parse<T: CommandFactory + FromArgMatches>(exclusive: &[(&str, &str)]) -> T {
    parse_words(T::command(), env::args_os(), exclusive)
}

/// Reads the rest of a command line whose first words named the program, as in `shoal get`. `adapt` may change the program's
/// command, but not the name of a flag.
pub fn parse_rest<T: CommandFactory + FromArgMatches>(
    first_words: &str,
    adapt: impl FnOnce(Command) -> Command,
    rest: impl IntoIterator<Item = OsString>,
    exclusive: &[(&str, &str)],
) -> T {
    let command = adapt(T::command().bin_name(first_words));
    parse_words(command, iter::once(first_words.into()).chain(rest), exclusive)
}

fn parse_words<T: FromArgMatches>(
    command: Command,
    words: impl IntoIterator<Item = OsString>,
    exclusive: &[(&str, &str)],
) -> T {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut command = command.max_term_width(HELP_WIDTH).mut_args(with_variable);
    let read = |command: &Command| {
        command.clone().try_get_matches_from(&words).unwrap_or_else(|error| exit(command, &error))
    };
    let mut matches = read(&command);
    for &(first, second) in exclusive.iter().chain(LOGS) {
        match loser(&matches, first, second) {
            Ok(None) => {}
            Ok(Some(loser)) => {
                // Read again as if the environment did not set it.
                command = command.mut_arg(loser, |arg| arg.env(None::<&'static str>));
                matches = read(&command);
            }
            Err(TogetherError) => {
                let [first, second] = [first, second].map(|id| as_typed(&command, &matches, id));
                let message = format!("'{first}' and '{second}' cannot be used together");
                let error = command.error(ErrorKind::ArgumentConflict, message);
                exit(&command, &error);
            }
        }
    }
    T::from_arg_matches(&matches).unwrap_or_else(|error| {
        let error = error.format(&mut command);
        exit(&command, &error)
    })
}

/// Names a flag's environment variable in `--help`, on a line of its own. Clap would name it in `-h` too, with its value.
fn with_variable(arg: Arg) -> Arg {
    let (Some(variable), Some(help)) = (arg.get_env(), arg.get_help()) else { return arg };
    let takes_value = arg.get_action().takes_values();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match takes_value && !defaults.is_empty() {
        true => format!(" [default: {}]", defaults.join(",")),
        false => String::new(),
    };
    // The long text begins with the summary.
    let (help, long_help) = (help.to_string(), arg.get_long_help().unwrap_or(help).to_string());
    let more = long_help.strip_prefix(&help).unwrap_or(&long_help);
    let summary = format!("{help}{default}");
    let details = format!("{summary}{more}\n[env: {}]", variable.to_string_lossy());
    arg.hide_env(true).hide_default_value(takes_value).help(summary).long_help(details)
}

/// Reads a port; 0 stands for any.
pub fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("it must be a number from 0 to {}", u16::MAX))
}

/// Reads an IP address to listen on.
pub fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "it must be an IP address of this machine, without a port".to_owned())
}

/// Ends the program with clap's message. The message may quote text that the user pasted, so it is escaped. The value may
/// come from an environment variable that the user forgot, so the variable is named.
fn exit(command: &Command, error: &Error) -> ! {
    let text = error.render().to_string();
    let (escaped, variable) = (escape_lines(&text), variable_of(command, error));
    if escaped == text && variable.is_none() {
        error.exit();
    }
    escaped.lines().for_each(eprint_line);
    if let Some(variable) = variable {
        eprint_line(format_args!("The value comes from the environment variable {variable}."));
    }
    std::process::exit(error.exit_code())
}

/// The environment variable that the wrong value comes from, if it comes from one.
fn variable_of(command: &Command, error: &Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    };
    let (flag, value) = (context(ContextKind::InvalidArg)?, context(ContextKind::InvalidValue)?);
    // Clap prints only the arguments of a command that it has built.
    let mut command = command.clone();
    command.build();
    let arg = command.get_arguments().find(|arg| arg.to_string() == *flag)?;
    let variable = arg.get_env()?;
    // It may be one of several values.
    let is_from_it = env::var(variable).is_ok_and(|set| set.contains(value.as_str()));
    is_from_it.then(|| variable.to_string_lossy().into_owned())
}

/// Two flags that exclude each other are both on the command line.
struct TogetherError;

/// The one of two flags that does not count, if both are set.
fn loser<'a>(
    matches: &ArgMatches,
    first: &'a str,
    second: &'a str,
) -> Result<Option<&'a str>, TogetherError> {
    match (source(matches, first), source(matches, second)) {
        (Some(ValueSource::CommandLine), Some(ValueSource::CommandLine)) => Err(TogetherError),
        (Some(_), Some(ValueSource::CommandLine)) => Ok(Some(first)),
        (Some(_), Some(_)) => Ok(Some(second)),
        _ => Ok(None),
    }
}

/// The source of a flag's value; `None` if it was not set. A switch that the environment turns off is not set.
fn source(matches: &ArgMatches, flag: &str) -> Option<ValueSource> {
    let set = !matches!(matches.try_get_one::<bool>(flag), Ok(Some(false)));
    matches.value_source(flag).filter(|&source| set && source != ValueSource::DefaultValue)
}

/// A flag as users type it: `--seed-for`. For a positional argument, its value.
fn as_typed(command: &Command, matches: &ArgMatches, id: &str) -> String {
    match command.get_arguments().find(|arg| arg.get_id() == id).and_then(|arg| arg.get_long()) {
        Some(long) => format!("--{long}"),
        None => {
            let typed = matches.get_raw(id).and_then(|mut values| values.next());
            typed.map_or_else(|| id.to_owned(), |value| value.to_string_lossy().into_owned())
        }
    }
}
