//! The `leecher` program as its users see it. The other roles run inside the tests.
#![expect(clippy::unwrap_used, reason = "tests")]

mod again;
mod content;
mod disk_full;
// All programs answer HTTP in the same way.
#[path = "../../../web/tests/http/docs.rs"]
mod docs;
mod failing;
mod fetching;
#[path = "../../../web/tests/http/get.rs"]
mod get;
mod hostile;
mod http;
mod interrupting;
mod json;
#[path = "../../../seeder/tests/command_line/json_docs.rs"]
mod json_docs;
mod killing;
mod listing;
mod memory;
mod network;
#[path = "../../../seeder/tests/command_line/on_terminal.rs"]
mod on_terminal;
mod options;
mod parts;
// One program is watched like the other.
#[path = "../../../seeder/tests/command_line/program.rs"]
mod program;
#[path = "../../../seeder/tests/command_line/readme.rs"]
mod readme;
#[path = "../../../seeder/tests/command_line/stopping.rs"]
mod stopping;
mod terminal;

use std::process::Command;

use program::Place;

fn leecher(place: &Place, args: &[&str]) -> Command {
    place.command(env!("CARGO_BIN_EXE_leecher"), args)
}
