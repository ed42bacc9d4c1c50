//! `--check`: reports how a copy differs.

use leecher::Checked;
use startup::{ExitCode, Failure, HumanBytes, print_json_line, print_line};

/// Reports a copy that is right; one that is not is a failure, which lists what differs.
pub(crate) fn report(checked: &Checked, is_json: bool, is_quiet: bool) -> Result<(), Failure> {
    let Checked { name, path, wanted, differences, .. } = checked;
    if differences.count > 0 {
        let mut list: Vec<_> =
            differences.first.iter().map(|(path, how)| format!("{} {how}", path.display())).collect();
        match differences.count.saturating_sub(differences.first.len() as u64) {
            0 => {}
            more => list.push(format!("and {more} more")),
        }
        let error = format!("{} is not {name}", path.display());
        return Err(Failure::new(ExitCode::Integrity, error).hint(list.join("\n  ")));
    }
    if is_json {
        let event = serde_json::json!({
            "event": "checked", "name": name.as_str(), "output": path.display().to_string(), "bytes": wanted,
        });
        print_json_line(&event.to_string());
    } else if !is_quiet {
        print_line(format_args!("{} is right: {} of {name}", path.display(), HumanBytes(*wanted)));
    }
    Ok(())
}
