//! The `seeder` program as its users see it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod attacked;
mod crowding;
// All programs answer HTTP in the same way.
#[path = "../../../web/tests/http/docs.rs"]
mod docs;
mod failing;
#[path = "../../../web/tests/http/get.rs"]
mod get;
mod http;
mod json;
mod json_docs;
mod on_terminal;
mod options;
mod peer;
mod program;
mod readme;
mod registering;
mod sharing;
mod stopping;
mod terminal;
mod tracking;
mod watching;

use std::process::Command;

use program::Place;

/// The seeder on any free port of loopback, so that what it prints is the same on every machine.
fn seeder(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(env!("CARGO_BIN_EXE_seeder"), args);
    command.env("SHOAL_PORT", "0").env("SHOAL_BIND", "127.0.0.1");
    command
}
