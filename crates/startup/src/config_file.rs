//! The configuration file: what flags are set to if neither the command line nor the environment sets them.
//!
//! It is TOML with one table for each part of `shoal`, and the three programs read the table of theirs. Keys are the long flags
//! of that part, so this file knows none of them: it turns a table into words for clap, which checks the values. It checks the
//! kinds of values itself, because their place in the file is lost after that.

use std::{
    ffi::OsString,
    fmt::Display,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource, value_parser};
use toml::de::{DeTable, DeValue};

use crate::invocation::part_name;

/// The file that is read if it exists and the user names no other.
const DEFAULT_PATH: &str = "/etc/shoal/shoal.toml";

/// Maximum bytes of a configuration file: far more than anybody writes, and a device without end is refused.
const MAX_LEN: u64 = 1 << 20;

/// The tables of a file.
const TABLES: [&str; 4] = ["tracker", "seed", "get", "wait"];

/// The id of the flag that names the file.
const ID: &str = "config";

/// Adds `--config`, if this command is one that has a table.
pub(crate) fn with_flag(command: Command) -> Command {
    if !TABLES.contains(&part_name(command.get_name())) {
        return command;
    }
    let flag = Arg::new(ID)
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .env("SHOAL_CONFIG")
        .hide_short_help(true)
        .help("Configuration file; 'none' for none")
        .long_help(format!(
            "Configuration file; 'none' for none\n\nTOML, with a table [{}] whose keys are long flags without their dashes. \
             Flags and environment variables win over it. [default: {DEFAULT_PATH}, if it exists]",
            part_name(command.get_name())
        ));
    command.arg(flag)
}

/// What a file sets, apart from what the command line or the environment sets too.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    path: PathBuf,
    settings: Vec<Setting>,
}

/// A key, as words of a command line.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    id: String,
    line: usize,
    words: Vec<OsString>,
}

impl Settings {
    /// Reads the file that `matches` name, for the flags of `command`. `matches` are of the same command without the file. An error
    /// names the file and the line.
    pub(crate) fn read(command: &Command, matches: &ArgMatches) -> Result<Settings, String> {
        let named = matches.try_get_one::<PathBuf>(ID).ok().flatten();
        let path = match named {
            Some(none) if none.as_os_str() == "none" => return Ok(Settings::default()),
            Some(path) => path.as_path(),
            None => Path::new(DEFAULT_PATH),
        };
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Settings::default());
            }
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let mut settings = settings(command, &text)
            .map_err(|(line, problem)| format!("{}, line {line}: {problem}", path.display()))?;
        settings.retain(|setting| {
            let source = matches.value_source(&setting.id);
            !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        });
        Ok(Settings { path: path.to_owned(), settings })
    }

    /// Whether the file sets this flag.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.settings.iter().any(|setting| setting.id == id)
    }

    /// Forgets a flag.
    pub(crate) fn remove(&mut self, id: &str) {
        self.settings.retain(|setting| setting.id != id);
    }

    /// Words to put in front of those of the command line.
    pub(crate) fn words(&self) -> impl Iterator<Item = &OsString> {
        self.settings.iter().flat_map(|setting| &setting.words)
    }

    /// Where this flag was set: `FILE, line N`.
    pub(crate) fn origin(&self, id: &str) -> Option<String> {
        let setting = self.settings.iter().find(|setting| setting.id == id)?;
        Some(format!("{}, line {}", self.path.display(), setting.line))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_LEN {
        return Err(io::Error::other(format!("it is larger than {MAX_LEN} bytes")));
    }
    Ok(text)
}

/// A line, and what is wrong there.
type Problem = (usize, String);

/// What the text sets for `command`.
fn settings(command: &Command, text: &str) -> Result<Vec<Setting>, Problem> {
    let line = |span: Range<usize>| text.bytes().take(span.start).filter(|&byte| byte == b'\n').count() + 1;
    let root = DeTable::parse(text)
        .map_err(|error| (line(error.span().unwrap_or_default()), error.message().to_owned()))?;
    let part = part_name(command.get_name());
    let mut settings = Vec::new();
    for (name, table) in root.get_ref() {
        let problem = |problem: String| (line(name.span()), problem);
        if !TABLES.contains(&name.get_ref().as_ref()) {
            let tables = TABLES.map(|table| format!("[{table}]")).join(", ");
            return Err(problem(format!("there is no table '{}', only {tables}", name.get_ref())));
        }
        let Some(table) = table.get_ref().as_table() else {
            return Err(problem(format!("'{}' has to be a table: [{0}]", name.get_ref())));
        };
        if name.get_ref() != part {
            continue;
        }
        for (key, value) in table {
            let line = line(key.span());
            let arg = flag(command, key.get_ref()).ok_or_else(|| {
                let hint = "keys are long flags without their dashes";
                (line, format!("[{part}] has no key '{}': {hint}", key.get_ref()))
            })?;
            let words = words(arg, key.get_ref(), value.get_ref()).map_err(|problem| (line, problem))?;
            settings.push(Setting { id: arg.get_id().to_string(), line, words });
        }
    }
    Ok(settings)
}

/// The flag with this long name, if a file may set it.
fn flag<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let sets = |arg: &&Arg| {
        let action = arg.get_action();
        action.takes_values() || matches!(action, ArgAction::SetTrue | ArgAction::Count)
    };
    command
        .get_arguments()
        .filter(|arg| arg.get_id() != ID)
        .find(|arg| arg.get_long() == Some(key))
        .filter(sets)
}

/// The words that set a flag to this value. An error names what the value has to be.
fn words(arg: &Arg, key: &str, value: &DeValue<'_>) -> Result<Vec<OsString>, String> {
    let flag = format!("--{key}");
    let set_to = |text: &dyn Display| OsString::from(format!("{flag}={text}"));
    let has_to_be = |what: &str| Err(format!("'{key}' has to be {what}, and is {}", kind(value)));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(is_set)) => {
            Ok(is_set.then(|| flag.into()).into_iter().collect())
        }
        (ArgAction::SetTrue, _) => has_to_be("true or false"),
        (ArgAction::Count, DeValue::Integer(count)) => match count.as_str().parse::<u8>() {
            Ok(count) => Ok(vec![flag.into(); count.into()]),
            Err(_) => has_to_be("a number from 0 to 255"),
        },
        (ArgAction::Count, _) => has_to_be("a number from 0 to 255"),
        (ArgAction::Append, DeValue::Array(values)) => {
            let texts = values.iter().map(|value| text(value.get_ref()));
            let words = texts.map(|text| text.map(|text| set_to(&text))).collect::<Option<Vec<_>>>();
            words.map_or_else(|| has_to_be("a list of strings"), Ok)
        }
        (_, value) => match text(value) {
            Some(text) => Ok(vec![set_to(&text)]),
            None => has_to_be("one value"),
        },
    }
}

/// A value that is no list, as one would type it.
fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        // A number with another radix has no prefix here.
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let flag = |id: &'static str| Arg::new(id).long(id);
        with_flag(Command::new("seeder"))
            .arg(flag("port"))
            .arg(flag("exclude").action(ArgAction::Append))
            .arg(flag("strict").action(ArgAction::SetTrue))
            .arg(flag("verbose").action(ArgAction::Count))
    }

    fn read_words(text: &str) -> Result<Vec<String>, Problem> {
        let settings = settings(&command(), text)?;
        let words = settings.into_iter().flat_map(|setting| setting.words);
        Ok(words.map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn a_table_becomes_the_words_that_one_would_type() {
        let text = "[tracker]\nport = 6\nanything = 1\n[seed]\nport = 7001\nexclude = ['*.tmp', \"a b\"]\nverbose = 2\nstrict = true\n";
        let words = ["--exclude=*.tmp", "--exclude=a b", "--port=7001", "--strict", "--verbose", "--verbose"];
        assert_eq!(read_words(text).unwrap(), words);
        // A list may have one element, and a switch may be off.
        assert_eq!(read_words("seed = { exclude = 'x', strict = false }").unwrap(), ["--exclude=x"]);
        assert_eq!(read_words("").unwrap(), [""; 0]);
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        for (text, line, says) in [
            ("[seed]\n\nprot = 7", 3, "[seed] has no key 'prot'"),
            ("[seed]\nhelp = true", 2, "no key 'help'"),
            ("[seed]\nconfig = 'x'", 2, "no key 'config'"),
            ("[seeder]\n", 1, "no table 'seeder'"),
            ("\nport = 7", 2, "no table 'port'"),
            ("seed = 7", 1, "'seed' has to be a table"),
            ("[seed]\nport = [7, 8]", 2, "'port' has to be one value, and is a list"),
            ("[seed]\nport = 0x7", 2, "'port' has to be one value"),
            ("[seed]\nexclude = [['x']]", 2, "'exclude' has to be a list of strings"),
            ("[seed]\nstrict = 'yes'", 2, "'strict' has to be true or false, and is a string"),
            ("[seed]\nverbose = -1", 2, "'verbose' has to be a number from 0 to 255"),
            ("[seed]\nport = 1\nport = 2", 3, "duplicate key"),
            ("[seed]\nport = ", 2, ""),
        ] {
            let (at, problem) = read_words(text).unwrap_err();
            assert!(at == line && problem.contains(says), "{text}: line {at}: {problem}");
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let path = Path::new("/dev/zero");
        assert!(!path.exists() || read(path).is_err());
    }
}
