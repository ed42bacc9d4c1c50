//! Chunks that are fetched in parts, because this host has similar bytes.
//!
//! First the hashes of such a chunk's blocks are asked for, 32 bytes each. The caller proves them and compares them with its own bytes. Then
//! the blocks that differ are asked for, or the whole chunk if most differ. Any peer can be asked each time.

use std::collections::{BTreeMap, BTreeSet};

use proto::{ChunkIndex, peer::Form};

use super::peer::Peer;

/// Number of chunks whose blocks are known that a peer is looked at for. Usually it has the first.
const LOOKED_AT: usize = 64;

/// The chunks that are fetched in parts, and in which form each is asked for next.
#[derive(Debug, Default)]
pub(super) struct Parts {
    forms: BTreeMap<ChunkIndex, Form>,
    /// Missing chunks of which it is known which blocks differ. They go first, so few of them wait.
    known: BTreeSet<ChunkIndex>,
}

impl Parts {
    /// In which form a chunk is asked for.
    pub(super) fn form(&self, chunk: ChunkIndex) -> Form {
        self.forms.get(&chunk).copied().unwrap_or(Form::Whole)
    }

    /// Whether any chunk is fetched in parts.
    pub(super) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// From now on, a chunk that is not missing is asked for in this form.
    pub(super) fn set(&mut self, chunk: ChunkIndex, form: Form) {
        match form {
            Form::Whole => _ = self.forms.remove(&chunk),
            form => _ = self.forms.insert(chunk, form),
        }
    }

    /// Whether what arrives of a chunk in this form is of use.
    pub(super) fn is_useful(&self, chunk: ChunkIndex, form: Form) -> bool {
        form == Form::Whole || form == self.form(chunk)
    }

    pub(super) fn missing(&mut self, chunk: ChunkIndex) {
        if let Form::Blocks(_) = self.form(chunk) {
            self.known.insert(chunk);
        }
    }

    pub(super) fn not_missing(&mut self, chunk: ChunkIndex) {
        self.known.remove(&chunk);
    }

    /// A missing chunk that a peer has, and of which it is known which blocks differ.
    pub(super) fn pick(&self, peer: &Peer) -> Option<ChunkIndex> {
        self.known.iter().take(LOOKED_AT).copied().find(|&chunk| peer.has(chunk))
    }
}
