//! `swarm::Swarm`, the core of a transfer, as a state machine: peers, trackers and disk do anything that their sessions and the driver
//! can pass on, in any order and at any time.
//!
//! Checked at every step: no panic; no action for a connection that is over or was ended; no address dialled twice or after it lied;
//! no chunk requested that is here, none from two peers before the endgame, and each in the form that is of use (whole, hashes of its blocks,
//! or blocks); no second chunk taken from a peer before its first is
//! proved; no more connections and requests than the limits; nothing that is due is left undone, so the driver never spins. At the end
//! every peer becomes honest, and the transfer finishes. Nothing is remembered about connections that are over.

#![no_main]

#[path = "swarm/input.rs"]
mod input;
#[path = "swarm/world.rs"]
mod world;

use libfuzzer_sys::fuzz_target;

use self::{
    input::{Input, Then},
    world::World,
};

/// Steps of a run. Longer ones find nothing more and make the fuzzer slow.
const MAX_STEPS: usize = 400;

fuzz_target!(|input: Input| {
    let mut world = World::new(&input);
    for (step, then) in input.steps.into_iter().take(MAX_STEPS) {
        if world.is_over {
            break;
        }
        let is_polled = then != Then::Hold || step.is_alone();
        world.step(step);
        if is_polled {
            world.act();
        }
    }
    world.act();
    world.become_honest();
    world.forget_all();
});
