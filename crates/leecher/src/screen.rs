//! The lines at the bottom of the terminal that change in place, for all transfers of one command.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use startup::console;

/// The lines of each transfer, in the order of the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Screen {
    blocks: Arc<Mutex<BTreeMap<usize, Vec<String>>>>,
}

/// The lines of one transfer. They disappear when this is dropped.
#[derive(Debug)]
pub(crate) struct Block {
    screen: Screen,
    number: usize,
}

impl Screen {
    /// The lines of the transfer with this number.
    pub(crate) fn block(&self, number: usize) -> Block {
        Block { screen: self.clone(), number }
    }

    fn update(&self, update: impl FnOnce(&mut BTreeMap<usize, Vec<String>>)) {
        // Locked until it is shown, so that an older state never replaces a newer one.
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        update(&mut blocks);
        if blocks.is_empty() {
            console::hide();
        } else {
            console::show(blocks.values().flatten().cloned().collect());
        }
    }
}

impl Block {
    /// Replaces the lines.
    pub(crate) fn show(&self, lines: Vec<String>) {
        self.screen.update(|blocks| _ = blocks.insert(self.number, lines));
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.screen.update(|blocks| _ = blocks.remove(&self.number));
    }
}
