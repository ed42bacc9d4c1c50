//! Reading a command line whose flags may also come from the environment.

use clap::{ArgMatches, CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};

/// Flags of [`crate::LogArgs`] that exclude each other.
const LOGS: &[(&str, &str)] = &[("no_log_file", "log_file")];

/// Reads the command line, or ends the program with a usage error.
///
/// `exclusive` names flags that exclude each other. Two of them on the command line are an error. One on the
/// command line wins over one from the environment; of two from the environment the first wins.
pub fn parse<T: CommandFactory + FromArgMatches>(exclusive: &[(&str, &str)]) -> T {
    let mut command = T::command();
    let mut matches = command.clone().get_matches();
    for &(first, second) in exclusive.iter().chain(LOGS) {
        match loser(&matches, first, second) {
            Ok(None) => {}
            Ok(Some(loser)) => {
                // Read again as if the environment did not set it.
                command = command.mut_arg(loser, |arg| arg.env(None::<&'static str>));
                matches = command.clone().get_matches();
            }
            Err(error) => command.error(ErrorKind::ArgumentConflict, error).exit(),
        }
    }
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// Which of two flags that exclude each other does not count, if both are set.
fn loser<'a>(matches: &ArgMatches, first: &'a str, second: &'a str) -> Result<Option<&'a str>, String> {
    match (source(matches, first), source(matches, second)) {
        (Some(ValueSource::CommandLine), Some(ValueSource::CommandLine)) => {
            Err(format!("'{first}' cannot be used with '{second}'"))
        }
        (Some(_), Some(ValueSource::CommandLine)) => Ok(Some(first)),
        (Some(_), Some(_)) => Ok(Some(second)),
        _ => Ok(None),
    }
}

/// Where a flag was set; `None` if it was not. A switch that the environment turns off is not set.
fn source(matches: &ArgMatches, flag: &str) -> Option<ValueSource> {
    let set = !matches!(matches.try_get_one::<bool>(flag), Ok(Some(false)));
    matches.value_source(flag).filter(|&source| set && source != ValueSource::DefaultValue)
}
