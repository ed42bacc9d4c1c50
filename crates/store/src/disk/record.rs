//! Records what a download changes on the file system, in tests. Each thread has its own record.
//!
//! A file or directory is a [`Node`], whatever it is called. So a record says what happens to contents and what happens to
//! names, apart from each other: a crash can keep one and lose the other.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File},
    ops,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
    rc::Rc,
};

use rustix::fs::{AtFlags, CWD, OFlags};

use crate::attributes::is_executable;

/// A file, a directory or a symbolic link. The first is the directory that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node(u32);

impl Node {
    /// The directory that is watched.
    pub(crate) const ROOT: Node = Node(0);
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dir: Node,
    pub(crate) name: OsString,
}

/// Files and directories by name.
pub(crate) type Names = BTreeMap<OsString, Node>;

/// A change, or a promise of the system that changes are durable.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    CreateFile(Place, Node),
    MakeDirectory(Place, Node),
    /// With its text.
    MakeLink(Place, Node, OsString),
    /// Another name for a file.
    HardLink(Place, Node),
    /// What was called the second before is replaced.
    Rename(Place, Place, Node),
    /// Each place has now what the other had.
    Exchange([(Place, Node); 2]),
    Remove(Place),
    Write {
        file: Node,
        offset: u64,
        bytes: Bytes,
    },
    Resize {
        file: Node,
        len: u64,
    },
    /// Whether its owner may execute it.
    SetExecutable(Node, bool),
    /// Data and length.
    SyncFile(Node),
    /// Permissions too.
    SyncWholeFile(Node),
    SyncDirectory(Node),
    #[cfg(target_os = "linux")]
    SyncAll,
}

/// Bytes that were written. Printed as their number.
#[derive(Clone)]
pub(crate) struct Bytes(Rc<[u8]>);

impl ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What there was, and what happened then.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Contents of the files that were there at the beginning. All of that is durable.
    pub(crate) files: BTreeMap<Node, Vec<u8>>,
    pub(crate) directories: BTreeMap<Node, Names>,
    pub(crate) links: BTreeMap<Node, OsString>,
    pub(crate) executables: BTreeSet<Node>,
    pub(crate) ops: Vec<Op>,
}

#[derive(Debug, Default)]
struct Recorder {
    record: Record,
    /// The names that there are now.
    names: BTreeMap<Node, Names>,
    /// The nodes of inode numbers. A number may be used again for another file.
    inodes: HashMap<u64, Node>,
    next: u32,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Records from now on what happens below `root`, in this thread.
pub(crate) fn begin(root: &Path) {
    let mut recorder = Recorder::default();
    recorder.take_in(root);
    recorder.record.directories = recorder.names.clone();
    RECORDER.set(Some(recorder));
}

/// Number of operations so far.
pub(crate) fn len() -> usize {
    RECORDER.with_borrow(|recorder| recorder.as_ref().map_or(0, |recorder| recorder.record.ops.len()))
}

/// Ends the record.
pub(crate) fn end() -> Record {
    RECORDER.take().map(|recorder| recorder.record).unwrap_or_default()
}

/// Runs this if there is a record.
fn with(change: impl FnOnce(&mut Recorder)) {
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(change));
}

pub(super) fn opened(dir: impl AsFd, path: &Path, file: &File, flags: OFlags) {
    if !flags.contains(OFlags::CREATE) {
        return;
    }
    with(|recorder| {
        let place = recorder.place_in(dir, path);
        if !recorder.names[&place.dir].contains_key(&place.name) {
            let node = recorder.add(&place, inode_of(file));
            recorder.push(Op::CreateFile(place, node));
        }
    });
}

pub(super) fn made_dir(dir: impl AsFd, path: &Path) {
    with(|recorder| {
        let inode = rustix::fs::statat(dir.as_fd(), path, AtFlags::empty()).unwrap().st_ino;
        let place = recorder.place_in(dir, path);
        let node = recorder.add(&place, inode);
        recorder.names.insert(node, Names::new());
        recorder.push(Op::MakeDirectory(place, node));
    });
}

pub(super) fn made_link(dir: impl AsFd, path: &Path, text: &OsStr) {
    with(|recorder| {
        let inode = rustix::fs::statat(dir.as_fd(), path, AtFlags::SYMLINK_NOFOLLOW).unwrap().st_ino;
        let place = recorder.place_in(dir, path);
        let node = recorder.add(&place, inode);
        recorder.push(Op::MakeLink(place, node, text.to_owned()));
    });
}

pub(super) fn linked(from_dir: impl AsFd, from: &Path, dir: impl AsFd, path: &Path) {
    with(|recorder| {
        let stat = rustix::fs::statat(from_dir, from, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let node = recorder.inodes[&stat.st_ino];
        let place = recorder.place_in(dir, path);
        recorder.names.get_mut(&place.dir).unwrap().insert(place.name.clone(), node);
        recorder.push(Op::HardLink(place, node));
    });
}

pub(super) fn set_permissions(file: &File, permissions: &fs::Permissions) {
    let is_executable = is_executable(permissions.mode());
    with(|recorder| recorder.push(Op::SetExecutable(recorder.node(file), is_executable)));
}

pub(super) fn synced_all(file: &File) {
    with(|recorder| recorder.push(Op::SyncWholeFile(recorder.node(file))));
}

pub(super) fn resized(file: &File, len: u64) {
    with(|recorder| recorder.push(Op::Resize { file: recorder.node(file), len }));
}

pub(super) fn wrote(file: &File, bytes: &[u8], offset: u64) {
    with(|recorder| {
        let file = recorder.node(file);
        recorder.push(Op::Write { file, offset, bytes: Bytes(bytes.into()) });
    });
}

pub(super) fn synced_data(file: &File) {
    with(|recorder| recorder.push(Op::SyncFile(recorder.node(file))));
}

pub(super) fn synced_directory(dir: &File) {
    with(|recorder| recorder.push(Op::SyncDirectory(recorder.node(dir))));
}

#[cfg(target_os = "linux")]
pub(super) fn synced_file_system() {
    with(|recorder| recorder.push(Op::SyncAll));
}

pub(super) fn renamed(from: &Path, to: &Path) {
    with(|recorder| {
        let (from, to) = (recorder.place(from), recorder.place(to));
        let node = recorder.remove(&from);
        recorder.names.get_mut(&to.dir).unwrap().insert(to.name.clone(), node);
        recorder.push(Op::Rename(from, to, node));
    });
}

pub(super) fn exchanged(one: &Path, other: &Path) {
    with(|recorder| {
        let places = [recorder.place(one), recorder.place(other)];
        let [of_one, of_other] = places.each_ref().map(|place| recorder.remove(place));
        let [one, other] = places;
        let now = [(one, of_other), (other, of_one)];
        for (place, node) in &now {
            recorder.names.get_mut(&place.dir).unwrap().insert(place.name.clone(), *node);
        }
        recorder.push(Op::Exchange(now));
    });
}

pub(super) fn removed(path: &Path) {
    with(|recorder| {
        let place = recorder.place(path);
        recorder.remove(&place);
        recorder.push(Op::Remove(place));
    });
}

pub(super) fn removed_in(dir: impl AsFd, name: &Path) {
    with(|recorder| {
        let place = recorder.place_in(dir, name);
        recorder.remove(&place);
        recorder.push(Op::Remove(place));
    });
}

impl Recorder {
    /// Takes in a file or directory that is there at the beginning, and what is in it.
    fn take_in(&mut self, path: &Path) -> Node {
        let meta = fs::symlink_metadata(path).unwrap();
        let node = self.new_node(meta.ino());
        if meta.is_dir() {
            let mut names = Names::new();
            for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
                names.insert(entry.file_name(), self.take_in(&entry.path()));
            }
            self.names.insert(node, names);
        } else if meta.is_symlink() {
            self.record.links.insert(node, fs::read_link(path).unwrap().into_os_string());
        } else {
            if is_executable(meta.mode()) {
                self.record.executables.insert(node);
            }
            self.record.files.insert(node, fs::read(path).unwrap());
        }
        node
    }

    fn push(&mut self, op: Op) {
        self.record.ops.push(op);
    }

    fn new_node(&mut self, inode: u64) -> Node {
        let node = Node(self.next);
        self.next += 1;
        self.inodes.insert(inode, node);
        node
    }

    fn add(&mut self, place: &Place, inode: u64) -> Node {
        let node = self.new_node(inode);
        self.names.get_mut(&place.dir).unwrap().insert(place.name.clone(), node);
        node
    }

    fn remove(&mut self, place: &Place) -> Node {
        self.names.get_mut(&place.dir).unwrap().remove(&place.name).unwrap()
    }

    fn node(&self, file: &File) -> Node {
        self.inodes[&inode_of(file)]
    }

    /// The place of a path that says where it begins.
    fn place(&self, path: &Path) -> Place {
        let dir = fs::metadata(path.parent().unwrap()).unwrap().ino();
        Place { dir: self.inodes[&dir], name: path.file_name().unwrap().to_owned() }
    }

    /// The place of a path that begins in a directory.
    fn place_in(&self, dir: impl AsFd, path: &Path) -> Place {
        if dir.as_fd().as_raw_fd() == CWD.as_raw_fd() {
            return self.place(path);
        }
        let mut dir = self.inodes[&rustix::fs::fstat(dir).unwrap().st_ino];
        let mut names: Vec<&OsStr> = path.iter().collect();
        let name = names.pop().unwrap().to_owned();
        for name in names {
            dir = self.names[&dir][name];
        }
        Place { dir, name }
    }
}

fn inode_of(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}
