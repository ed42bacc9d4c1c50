#!/usr/bin/env python3
"""Make a table of BitTorrent v2 (BEP 52) infohashes, as libtorrent computes them.

    pip install libtorrent && python3 infohashes.py > infohashes.tsv

Each row is a v2-only torrent of generated content whose `info` dictionary
holds exactly `file tree`, `meta version` (2), `name` and `piece length`
(524288). Byte i of a file of seed s is

    (i * 31 + (i >> 8) * 7 + (i >> 16) * 13 + s) & 0xff

The columns, separated by tabs, are

    file  name  size  seed  infohash  pieces_root   (`-` when the file is empty)
    dir   name  members                infohash     (`path:size:seed`, joined by `|`)

A `file` row is a torrent of a bare file; a `dir` row is a torrent of a folder,
its member paths relative to that folder and listed in no particular order.
Hashes are full SHA-256 in lower-case hex; text is UTF-8 (names in NFC).
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import libtorrent as lt

PIECE = 524288
KEYS = {b"file tree", b"meta version", b"name", b"piece length"}

SIZES = [
    0, 1, 16383, 16384, 16385, 32768, 49153, 81920, 524287, 524288, 524289,
    540672, 1048575, 1048576, 1048577, 1572864, 3145728, 2621441, 8388608 + 12345,
]
FILES = [(f"file-{size}.bin", size) for size in SIZES]
FILES.append(("日本語の ファイル 🦀.bin", 70000))  # Japanese, spaces, an emoji

DIRS = [
    # Out of order on purpose. The tree sorts by the bytes of each path
    # component: `a` < `a-b` < `a.txt`, though `a-b` < `a.txt` < `a/x` as
    # strings; upper case before lower; `ä` after `z`; and U+FF5E before the
    # emoji, which UTF-16 order would turn round.
    ("folder", [
        ("z/two.bin", 524289, 101),
        ("a.txt", 16384, 102),
        ("😀.txt", 40000, 103),
        ("ä.txt", 1, 104),
        ("a/x", 524288, 105),
        ("B.txt", 100, 106),
        ("a/empty", 0, 107),
        ("Z/deep/er/one.bin", 1300000, 108),
        ("a-b", 16385, 109),
        ("～.txt", 2000, 110),
        ("a/b/c", 32769, 111),
        ("Z/deep.txt", 1, 112),
    ]),
    # A folder of one file: still a folder, not a single-file torrent.
    ("only", [("one.bin", 600000, 113)]),
]


def content(size, seed):
    """The bytes of a generated file, built a run of 256 at a time."""
    runs = [bytes((j * 31 + add) & 0xFF for j in range(256)) for add in range(256)]
    out = bytearray()
    for k in range((size + 255) // 256):  # k is i >> 8
        out += runs[(k * 7 + (k >> 8) * 13 + seed) & 0xFF]
    return bytes(out[:size])


def leaves(tree, prefix=""):
    """The files of a `file tree`, as {path: its properties}."""
    found = {}
    for key, node in tree.items():
        path = prefix + key.decode()
        if b"" in node:
            assert len(node) == 1
            found[path] = node[b""]
        else:
            found.update(leaves(node, path + "/"))
    return found


def torrent(name, members):
    """Hash a torrent of `members`, (path, size, seed), whose paths begin with
    `name`; returns its infohash and the properties of each file."""
    with tempfile.TemporaryDirectory() as base:
        storage = lt.file_storage()
        for path, size, seed in members:
            target = Path(base, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content(size, seed))
            # Neither flags nor mtime given: so no `attr` or `mtime` in the tree.
            storage.add_file(path, size)
        # (libtorrent 2.1 warns that this constructor is deprecated; 2.0 has no other.)
        maker = lt.create_torrent(storage, PIECE, lt.create_torrent.v2_only)
        lt.set_piece_hashes(maker, base)
        made = lt.torrent_info(maker.generate())

    raw = bytes(made.info_section())
    info = lt.bdecode(raw)
    assert set(info) == KEYS, info.keys()
    assert info[b"meta version"] == 2 and info[b"piece length"] == PIECE
    assert info[b"name"].decode() == name, info[b"name"]
    infohash = hashlib.sha256(raw).hexdigest()
    assert infohash == str(made.info_hashes().v2)
    assert not made.info_hashes().has_v1()

    # The tree holds just these files (so no padding), and only these facts.
    files = leaves(info[b"file tree"])
    single = members[0][0] == name
    wanted = {p if single else p[len(name) + 1:]: size for p, size, _ in members}
    assert files.keys() == wanted.keys(), files.keys()
    for path, size in wanted.items():
        assert files[path][b"length"] == size
        assert files[path].keys() == ({b"length", b"pieces root"} if size else {b"length"})
    return infohash, files


def main():
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    rows, notes = [], []
    for seed, (name, size) in enumerate(FILES, 1):
        try:
            infohash, files = torrent(name, [(name, size, seed)])
        except RuntimeError as error:
            if size:
                raise
            notes.append(f"left out {name}: libtorrent refuses an empty torrent ({error})")
            continue
        root = files[name].get(b"pieces root")
        rows.append(("file", name, size, seed, infohash, root.hex() if root else "-"))
    for name, members in DIRS:
        infohash, _ = torrent(name, [(f"{name}/{p}", size, seed) for p, size, seed in members])
        rows.append(("dir", name, "|".join(f"{p}:{n}:{s}" for p, n, s in members), infohash))

    print(f"# BitTorrent v2 infohashes by libtorrent {lt.__version__}; made by infohashes.py")
    print("# byte i of a file of seed s: (i * 31 + (i >> 8) * 7 + (i >> 16) * 13 + s) & 0xff")
    print(f"# piece length {PIECE}; info dictionary: file tree, meta version, name, piece length")
    print("# file\tname\tsize\tseed\tinfohash\tpieces_root")
    print("# dir\tname\tmembers (path:size:seed, joined by |)\tinfohash")
    for note in notes:
        print(f"# {note}")
    for row in rows:
        print(*row, sep="\t")


if __name__ == "__main__":
    main()
