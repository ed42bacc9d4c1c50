//! Reading a command line whose flags may also come from the environment or from a configuration file.
//!
//! The command line wins over the environment, and that wins over the file. What the file sets is put in front of the command
//! line's words, except for flags that are set elsewhere.
//!
//! `-h` is a summary for one screen: the usual flags, one line each. `--help` has every flag with its environment variable.
//! A program marks its other flags with `hide_short_help`.

use std::{env, ffi::OsString, fmt, iter, net::IpAddr};

use clap::{
    Arg, ArgMatches, Command, CommandFactory, Error, FromArgMatches,
    builder::{FalseyValueParser, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use crate::{
    config_file::{self, Settings},
    console::eprint_line,
    escape::escape_lines,
    exit::ExitCode,
    json::{Event, Output, print_event},
};

/// Maximum columns of a help text.
const HELP_WIDTH: usize = 80;

/// Flags of [`crate::LogArgs`] that exclude each other.
const LOGS: &[(&str, &str)] = &[("no_log_file", "log_file")];

/// Reads the command line, or ends the program with a usage error.
///
/// `exclusive` names flags that exclude each other. Two of them on the command line are an error. One on the command line
/// wins over one from the environment, and that over one from the file. If both are from the same of these two, the first wins.
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
    let mut command = complete(command);
    let mut settings = settings(&command, &words);
    let read = |command: &Command, settings: &Settings| {
        let (name, rest) = words.split_at(words.len().min(1));
        let all = name.iter().chain(settings.words()).chain(rest);
        command
            .clone()
            .try_get_matches_from(all)
            .unwrap_or_else(|error| exit(command, settings, &words, &error))
    };
    let mut matches = read(&command, &settings);
    for &(first, second) in exclusive.iter().chain(LOGS) {
        match loser(&matches, &settings, first, second) {
            Ok(None) => {}
            Ok(Some(loser)) => {
                // Read again as if neither the environment nor the file set it.
                command = command.mut_arg(loser, |arg| arg.env(None::<&'static str>));
                settings.remove(loser);
                matches = read(&command, &settings);
            }
            Err(TogetherError) => {
                let [first, second] = [first, second].map(|id| as_typed(&command, &matches, id));
                let message = format!("'{first}' and '{second}' cannot be used together");
                let error = command.error(ErrorKind::ArgumentConflict, message);
                exit(&command, &settings, &words, &error);
            }
        }
    }
    T::from_arg_matches(&matches).unwrap_or_else(|error| {
        let error = error.format(&mut command);
        exit(&command, &settings, &words, &error)
    })
}

/// A program's command with what is the same in all programs: its width, the variables in its help, and `--config`.
pub fn complete(command: Command) -> Command {
    config_file::with_flag(command).max_term_width(HELP_WIDTH).mut_args(with_variable)
}

/// Reads the configuration file, or ends the program with a usage error.
fn settings(command: &Command, words: &[OsString]) -> Settings {
    // What is wrong with the words is reported when they are read together with the file's: it may have what they lack.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(words) else {
        return Settings::default();
    };
    Settings::read(command, &matches).unwrap_or_else(|problem| {
        let error = command.clone().error(ErrorKind::ValueValidation, problem);
        exit(command, &Settings::default(), words, &error)
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

/// Ends the program with a usage error that concerns several flags.
pub fn usage_error<T: CommandFactory>(message: impl fmt::Display, output: Output) -> ! {
    let error = T::command().error(ErrorKind::ValueValidation, message);
    if output == Output::Json {
        print_usage_error(&error);
    }
    error.exit()
}

/// Ends a program that is several in one, when the command line names none of them. Events are asked for as in each of them.
pub fn refuse(command: &Command, error: &Error) -> ! {
    let json = Arg::new("json").long("json").env("SHOAL_JSON");
    let words: Vec<OsString> = env::args_os().collect();
    exit(&command.clone().arg(json), &Settings::default(), &words, error)
}

/// Whether events are asked for. The command line could not be read, so this looks for the flag as it is usually typed.
fn asks_for_json(command: &Command, settings: &Settings, words: &[OsString]) -> bool {
    let Some(json) = command.get_arguments().find(|arg| arg.get_id() == "json") else { return false };
    let words = settings.words().chain(words.iter().take_while(|word| *word != "--"));
    let is_typed = words.into_iter().any(|word| word == "--json");
    let variable = json.get_env().and_then(env::var_os);
    let is_set = variable.and_then(|set| FalseyValueParser::new().parse_ref(command, Some(json), &set).ok());
    is_typed || is_set.unwrap_or(false)
}

/// The first paragraph of clap's message, as an event.
fn print_usage_error(error: &Error) {
    let text = error.render().to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    let message = text.strip_prefix("error: ").unwrap_or(text).trim_end().to_owned();
    print_event(&Event::Error { code: ExitCode::Usage as u8, message, hint: None });
}

/// Ends the program with clap's message. The message may quote text that the user pasted, so it is escaped. The value may
/// come from an environment variable or a file that the user forgot, so that is named.
fn exit(command: &Command, settings: &Settings, words: &[OsString], error: &Error) -> ! {
    // Help and the version are no errors.
    if error.use_stderr() && asks_for_json(command, settings, words) {
        print_usage_error(error);
    }
    let text = error.render().to_string();
    let (escaped, origin) = (escape_lines(&text), origin(command, settings, error));
    if escaped == text && origin.is_none() {
        error.exit();
    }
    escaped.lines().for_each(eprint_line);
    if let Some(origin) = origin {
        eprint_line(format_args!("The value comes from {origin}."));
    }
    std::process::exit(error.exit_code())
}

/// Where the wrong value comes from, if not from the command line.
fn origin(command: &Command, settings: &Settings, error: &Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    };
    let (flag, value) = (context(ContextKind::InvalidArg)?, context(ContextKind::InvalidValue)?);
    // Clap prints only the arguments of a command that it has built.
    let mut command = command.clone();
    command.build();
    let arg = command.get_arguments().find(|arg| arg.to_string() == *flag)?;
    if let Some(place) = settings.origin(arg.get_id().as_str()) {
        return Some(place);
    }
    let variable = arg.get_env()?;
    // It may be one of several values.
    let is_from_it = env::var(variable).is_ok_and(|set| set.contains(value.as_str()));
    is_from_it.then(|| format!("the environment variable {}", variable.to_string_lossy()))
}

/// Two flags that exclude each other are both on the command line.
struct TogetherError;

/// What set a flag; a later one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    File,
    Environment,
    CommandLine,
}

/// The one of two flags that does not count, if both are set.
fn loser<'a>(
    matches: &ArgMatches,
    settings: &Settings,
    first: &'a str,
    second: &'a str,
) -> Result<Option<&'a str>, TogetherError> {
    match (set_by(matches, settings, first), set_by(matches, settings, second)) {
        (Some(Origin::CommandLine), Some(Origin::CommandLine)) => Err(TogetherError),
        (Some(of_first), Some(of_second)) if of_first < of_second => Ok(Some(first)),
        (Some(_), Some(_)) => Ok(Some(second)),
        _ => Ok(None),
    }
}

/// What set a flag; `None` if nothing did. A switch that the environment turns off is not set.
fn set_by(matches: &ArgMatches, settings: &Settings, flag: &str) -> Option<Origin> {
    if matches!(matches.try_get_one::<bool>(flag), Ok(Some(false))) {
        return None;
    }
    match matches.value_source(flag)? {
        // Its words were read as if they had been typed.
        ValueSource::CommandLine if settings.has(flag) => Some(Origin::File),
        ValueSource::CommandLine => Some(Origin::CommandLine),
        ValueSource::EnvVariable => Some(Origin::Environment),
        _ => None,
    }
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
