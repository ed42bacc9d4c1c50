//! A model of a disk: what is durable, what is pending, and what a power cut can leave of it.
//!
//! It promises as little as POSIX allows. What was not synced may be kept or lost, in any combination:
//!
//! - **Data.** Every sector (512 bytes or 4 KiB) of a write is kept, lost, or something else: zeros, or bytes of a deleted
//!   file. A later write may be kept and an earlier one lost.
//! - **Lengths.** A file has any length that it had since it was last synced.
//! - **Permissions.** A file has any that it had since they were last synced, which `fdatasync` does not do.
//! - **Names.** A name that was created, changed or removed is durable when its directory was synced, and not before: a sync
//!   of the file does not make its name durable.
//!
//! Three rules are assumed, and nothing else:
//!
//! 1. What was synced successfully stays: `fdatasync` of a file keeps its data and length, `fsync` its permissions too, `fsync`
//!    of a directory its names, `syncfs` everything on the file system. POSIX knows the first two; `syncfs` is Linux's.
//! 2. A sector that is not written to, or is written with the bytes that it holds, does not change. So a torn write to one slot
//!    of the resume file leaves the other.
//! 3. A rename is whole: after a crash the old name or the new one is there ([`Renames::Whole`]). POSIX promises this only
//!    while the system runs. ext4, XFS, btrfs and APFS keep the promise. Without the rule ([`Renames::Split`]) no wrong byte
//!    appears, but a share can lose both its names, and with them its chunks.
//!
//! An exchange of two names is whole even without the third rule: only file systems with a journal have that operation.
//!
//! ext4 and XFS promise more: names become durable in the order in which they were changed, and a sync of a new file makes
//! its name durable. Nothing here relies on that.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    mem,
    os::unix::fs::symlink,
    path::Path,
    rc::Rc,
};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use super::super::bench::make_executable;
use crate::disk::record::{Bytes, Names, Node, Op, Place, Record};

/// Whether a crash can keep half of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renames {
    Whole,
    Split,
}

#[derive(Debug, Clone)]
pub(super) struct Disk {
    files: BTreeMap<Node, FileState>,
    /// A link is whole where it has a name.
    links: BTreeMap<Node, OsString>,
    /// The durable names in each directory.
    directories: BTreeMap<Node, Names>,
    /// Changes of names that are not durable, in order.
    changes: Vec<NameChange>,
}

#[derive(Debug, Clone, Default)]
struct FileState {
    durable: Rc<Vec<u8>>,
    /// How often it was synced.
    syncs: u32,
    pending: Vec<DataChange>,
    mode: Mode,
}

/// Whether a file can be executed.
#[derive(Debug, Clone, Default)]
struct Mode {
    durable: bool,
    pending: Vec<bool>,
}

#[derive(Debug, Clone)]
enum DataChange {
    Write { offset: usize, bytes: Bytes },
    Resize(usize),
}

/// What happens to names in one call.
#[derive(Debug, Clone)]
struct NameChange {
    /// Each place, and what it names after that.
    effects: Vec<(Place, Option<Node>)>,
    is_exchange: bool,
}

impl NameChange {
    fn new(effects: Vec<(Place, Option<Node>)>) -> NameChange {
        NameChange { effects, is_exchange: false }
    }
}

/// What a power cut left.
#[derive(Debug)]
pub(super) struct Wreck {
    /// Each with whether it can be executed.
    files: BTreeMap<Node, (Vec<u8>, bool)>,
    links: BTreeMap<Node, OsString>,
    directories: BTreeMap<Node, Names>,
    /// Differs for different wrecks of one record.
    pub(super) fingerprint: u64,
}

impl Disk {
    pub(super) fn new(record: &Record) -> Disk {
        let durable = |node, bytes: &Vec<u8>| FileState {
            durable: Rc::new(bytes.clone()),
            mode: Mode { durable: record.executables.contains(&node), pending: Vec::new() },
            ..FileState::default()
        };
        Disk {
            files: record.files.iter().map(|(&node, bytes)| (node, durable(node, bytes))).collect(),
            links: record.links.clone(),
            directories: record.directories.clone(),
            changes: Vec::new(),
        }
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::CreateFile(place, node) => {
                self.files.insert(node, FileState::default());
                self.changes.push(NameChange::new(vec![(place, Some(node))]));
            }
            Op::MakeDirectory(place, node) => {
                self.directories.insert(node, Names::new());
                self.changes.push(NameChange::new(vec![(place, Some(node))]));
            }
            Op::MakeLink(place, node, text) => {
                self.links.insert(node, text);
                self.changes.push(NameChange::new(vec![(place, Some(node))]));
            }
            Op::HardLink(place, node) => {
                self.changes.push(NameChange::new(vec![(place, Some(node))]));
            }
            Op::Rename(from, to, node) => {
                self.changes.push(NameChange::new(vec![(to, Some(node)), (from, None)]));
            }
            Op::Exchange(now) => {
                let now = now.map(|(place, node)| (place, Some(node)));
                self.changes.push(NameChange { effects: now.into(), is_exchange: true });
            }
            Op::Remove(place) => self.changes.push(NameChange::new(vec![(place, None)])),
            Op::Write { file, offset, bytes } => {
                let offset = usize::try_from(offset).unwrap();
                self.file(file).pending.push(DataChange::Write { offset, bytes });
            }
            Op::Resize { file, len } => {
                self.file(file).pending.push(DataChange::Resize(usize::try_from(len).unwrap()));
            }
            Op::SetExecutable(file, is_executable) => self.file(file).mode.pending.push(is_executable),
            Op::SyncFile(file) => self.file(file).sync(),
            Op::SyncWholeFile(file) => self.file(file).sync_all(),
            Op::SyncDirectory(dir) => self.sync_names(|place| place.dir == dir),
            #[cfg(target_os = "linux")]
            Op::SyncAll => {
                self.files.values_mut().for_each(FileState::sync_all);
                self.sync_names(|_| true);
            }
        }
    }

    /// What a power cut could leave now.
    pub(super) fn crash(&self, renames: Renames, extreme: Option<Extreme>, rng: &mut StdRng) -> Wreck {
        let mut hasher = DefaultHasher::new();
        let directories = self.names_after(renames, extreme, rng);
        let mut wreck = Wreck {
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            directories: BTreeMap::new(),
            fingerprint: 0,
        };
        let mut reached = vec![Node::ROOT];
        while let Some(node) = reached.pop() {
            node.hash(&mut hasher);
            if let Some(names) = directories.get(&node) {
                names.hash(&mut hasher);
                reached.extend(names.values());
                wreck.directories.insert(node, names.clone());
            } else if let Some(text) = self.links.get(&node) {
                wreck.links.insert(node, text.clone());
            } else {
                let file = &self.files[&node];
                let bytes = file.after(extreme, rng, &mut hasher);
                let is_executable = file.mode.after(extreme, rng);
                is_executable.hash(&mut hasher);
                wreck.files.insert(node, (bytes, is_executable));
            }
        }
        wreck.fingerprint = hasher.finish();
        wreck
    }

    fn names_after(
        &self,
        renames: Renames,
        extreme: Option<Extreme>,
        rng: &mut StdRng,
    ) -> BTreeMap<Node, Names> {
        let mut directories = self.directories.clone();
        // A journal keeps the earlier ones; the model keeps any of them.
        let is_journal = rng.random_bool(0.3);
        let last = rng.random_range(0..=self.changes.len());
        for (number, NameChange { effects, is_exchange }) in self.changes.iter().enumerate() {
            let is_kept = match extreme {
                Some(extreme) => extreme.keeps_names(),
                None if is_journal => number < last,
                None => rng.random(),
            };
            for (place, node) in effects {
                let is_split = renames == Renames::Split && !is_exchange;
                let is_kept = if is_split { rng.random() } else { is_kept };
                if is_kept {
                    set(&mut directories, place, *node);
                }
            }
        }
        directories
    }

    fn file(&mut self, node: Node) -> &mut FileState {
        self.files.get_mut(&node).unwrap()
    }

    fn sync_names(&mut self, is_synced: impl Fn(&Place) -> bool) {
        for NameChange { mut effects, is_exchange } in mem::take(&mut self.changes) {
            for (place, node) in effects.extract_if(.., |(place, _)| is_synced(place)) {
                set(&mut self.directories, &place, node);
            }
            if !effects.is_empty() {
                self.changes.push(NameChange { effects, is_exchange });
            }
        }
    }
}

fn set(directories: &mut BTreeMap<Node, Names>, place: &Place, node: Option<Node>) {
    let names = directories.get_mut(&place.dir).unwrap();
    match node {
        Some(node) => _ = names.insert(place.name.clone(), node),
        None => _ = names.remove(&place.name),
    }
}

/// A wreck at the edge of what is possible.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extreme {
    AllKept,
    AllLost,
    NamesKept,
    DataKept,
}

impl Extreme {
    pub(super) const ALL: [Extreme; 4] =
        [Extreme::AllKept, Extreme::AllLost, Extreme::NamesKept, Extreme::DataKept];

    fn keeps_names(self) -> bool {
        matches!(self, Extreme::AllKept | Extreme::NamesKept)
    }

    fn keeps_data(self) -> bool {
        matches!(self, Extreme::AllKept | Extreme::DataKept)
    }
}

/// How pending writes to a file are lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Nothing,
    Everything,
    /// Everything after this change, which is torn itself.
    After(usize),
    Writes,
    /// Sectors, each kept with this chance.
    Sectors(f64),
    /// Sectors, some of which are neither what they were nor what they should be.
    Garbled,
}

/// What a sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sector {
    Before,
    /// What this change wrote.
    Written(usize),
    Zeros,
    Garbage,
}

impl FileState {
    fn sync(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let bytes = Rc::make_mut(&mut self.durable);
        for change in self.pending.drain(..) {
            match change {
                DataChange::Resize(len) => bytes.resize(len, 0),
                DataChange::Write { offset, bytes: written } => {
                    let end = offset + written.len();
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[offset..end].copy_from_slice(&written);
                }
            }
        }
        self.syncs += 1;
    }

    fn sync_all(&mut self) {
        self.sync();
        let Mode { durable, pending } = &mut self.mode;
        *durable = pending.drain(..).next_back().unwrap_or(*durable);
    }

    /// The lengths that the file had, since and at the last sync.
    fn lens(&self) -> Vec<usize> {
        let mut lens = vec![self.durable.len()];
        for change in &self.pending {
            let len = *lens.last().unwrap();
            lens.push(match change {
                DataChange::Resize(len) => *len,
                DataChange::Write { offset, bytes } => len.max(offset + bytes.len()),
            });
        }
        lens
    }

    /// What a power cut leaves of the file.
    fn after(&self, extreme: Option<Extreme>, rng: &mut StdRng, hasher: &mut DefaultHasher) -> Vec<u8> {
        self.syncs.hash(hasher);
        if self.pending.is_empty() {
            return Vec::clone(&self.durable);
        }
        let loss = match extreme {
            Some(extreme) if extreme.keeps_data() => Loss::Nothing,
            Some(_) => Loss::Everything,
            None => *[
                Loss::Nothing,
                Loss::Everything,
                Loss::After(rng.random_range(0..self.pending.len())),
                Loss::Writes,
                Loss::Sectors(0.9),
                Loss::Sectors(0.5),
                Loss::Sectors(0.1),
                Loss::Garbled,
            ]
            .choose(rng)
            .unwrap(),
        };
        let lens = self.lens();
        let len = match loss {
            Loss::Nothing => lens[lens.len() - 1],
            Loss::Everything => lens[0],
            Loss::After(number) => lens[number + 1],
            Loss::Writes | Loss::Sectors(_) | Loss::Garbled => *lens.choose(rng).unwrap(),
        };
        let sector_len = *[512, 4096].choose(rng).unwrap();
        let sectors = self.sectors(loss, len.div_ceil(sector_len), sector_len, rng);
        (len, sector_len, &sectors).hash(hasher);
        self.bytes(len, sector_len, &sectors)
    }

    /// What each sector holds.
    fn sectors(&self, loss: Loss, count: usize, sector_len: usize, rng: &mut StdRng) -> Vec<Sector> {
        let mut sectors = vec![Sector::Before; count];
        for (number, change) in self.pending.iter().enumerate() {
            let DataChange::Write { offset, bytes } = change else { continue };
            let range = offset / sector_len..(offset + bytes.len()).div_ceil(sector_len);
            let is_written: bool = rng.random();
            let torn_at = rng.random_range(range.clone());
            for (at, sector) in sectors.iter_mut().enumerate().take(range.end).skip(range.start) {
                let written = Sector::Written(number);
                let is_kept = match loss {
                    Loss::Nothing => true,
                    Loss::Everything => false,
                    Loss::After(last) => number < last || number == last && at < torn_at,
                    Loss::Writes => is_written,
                    Loss::Sectors(chance) => rng.random_bool(chance),
                    Loss::Garbled if self.is_durable(*offset, bytes, at * sector_len, sector_len) => true,
                    Loss::Garbled => {
                        *sector = *[*sector, written, written, written, Sector::Zeros, Sector::Garbage]
                            .choose(rng)
                            .unwrap();
                        continue;
                    }
                };
                if is_kept {
                    *sector = written;
                }
            }
        }
        sectors
    }

    /// Whether a write leaves a sector with the bytes that it has on the disk.
    fn is_durable(&self, offset: usize, written: &[u8], begin: usize, sector_len: usize) -> bool {
        let (from, to) = (begin.max(offset), (begin + sector_len).min(offset + written.len()));
        self.durable.get(from..to).is_some_and(|bytes| *bytes == written[from - offset..to - offset])
    }

    fn bytes(&self, len: usize, sector_len: usize, sectors: &[Sector]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        bytes.extend(&self.durable[..len.min(self.durable.len())]);
        bytes.resize(len, 0);
        for (&sector, (number, bytes)) in sectors.iter().zip(bytes.chunks_mut(sector_len).enumerate()) {
            let begin = number * sector_len;
            match sector {
                Sector::Before => {}
                Sector::Zeros => bytes.fill(0),
                Sector::Garbage => bytes.fill(0xA5),
                Sector::Written(last) => {
                    // A sector holds all that had been written to it when it was kept.
                    for change in &self.pending[..=last] {
                        let DataChange::Write { offset, bytes: written } = change else { continue };
                        let from = begin.max(*offset);
                        let to = (begin + bytes.len()).min(offset + written.len());
                        if from < to {
                            bytes[from - begin..to - begin]
                                .copy_from_slice(&written[from - offset..to - offset]);
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl Mode {
    fn after(&self, extreme: Option<Extreme>, rng: &mut StdRng) -> bool {
        let last = self.pending.last().copied().unwrap_or(self.durable);
        match extreme {
            Some(extreme) if extreme.keeps_data() => last,
            Some(_) => self.durable,
            None if self.pending.is_empty() => self.durable,
            None => {
                *self.pending.iter().chain([&self.durable]).collect::<Vec<_>>().choose(rng).copied().unwrap()
            }
        }
    }
}

impl Wreck {
    /// Puts it into an empty directory.
    pub(super) fn place(&self, root: &Path) {
        self.place_directory(Node::ROOT, root);
    }

    fn place_directory(&self, node: Node, path: &Path) {
        for (name, node) in &self.directories[&node] {
            let path = path.join(name);
            match (self.files.get(node), self.links.get(node)) {
                (Some((bytes, is_executable)), _) => {
                    fs::write(&path, bytes).unwrap();
                    if *is_executable {
                        make_executable(&path);
                    }
                }
                (None, Some(text)) => symlink(text, path).unwrap(),
                (None, None) => {
                    fs::create_dir(&path).unwrap();
                    self.place_directory(*node, &path);
                }
            }
        }
    }
}
