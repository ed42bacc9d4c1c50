//! The `seeder` program as its users see it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod crowding;
mod failing;
mod options;
mod peer;
mod program;
mod registering;
mod sharing;
mod tracking;

use std::process::Command;

use program::Place;

/// The seeder on any free port.
fn seeder(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(env!("CARGO_BIN_EXE_seeder"), args);
    command.env("SHOAL_PORT", "0");
    command
}
