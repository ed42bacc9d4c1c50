//! `--check`: reports how a copy differs.

use leecher::Checked;
use startup::{ExitCode, Failure, HumanBytes, json::Event, print_line};

use crate::report::{Reporter, Style};

/// Reports a copy that is right; one that is not is a failure, which lists what differs.
pub(crate) fn report(checked: &Checked, reporter: &Reporter) -> Result<(), Failure> {
    let Checked { name, path, wanted, differences, .. } = checked;
    if differences.count > 0 {
        let mut list = Vec::new();
        for (path, how) in &differences.first {
            list.push(format!("{} {how}", path.display()));
            reporter.print(&Event::Difference { path: path.display().to_string(), message: how.to_string() });
        }
        match differences.count.saturating_sub(differences.first.len() as u64) {
            0 => {}
            more => list.push(format!("and {more} more")),
        }
        let error = format!("{} differs from the share '{name}'", path.display());
        return Err(Failure::new(ExitCode::Integrity, error).hint(list.join("\n  ")));
    }
    let (name, bytes) = (name.as_str(), *wanted);
    match reporter.style() {
        Style::Json => {
            reporter.print(&Event::Checked { name, output: path.display().to_string(), bytes });
        }
        Style::Quiet => {}
        Style::Progress | Style::Plain => {
            print_line(format_args!("{} is right: {} of {name}", path.display(), HumanBytes(bytes)));
        }
    }
    Ok(())
}
