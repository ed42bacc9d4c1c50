"""A disk in memory whose writes and flushes are logged: a loop device on a file that this process serves over FUSE.

The kernel's own tools for this (dm-log-writes, nbd, ublk) are often not built in; FUSE and loop devices nearly always are.
The loop device passes each write on at once, and a flush as an fsync, so the log has the order in which a disk gets them.
"""
import collections, contextlib, errno, multiprocessing, os, pathlib, stat, struct, subprocess

from machine import output

BLOCK, SECTOR = 4096, 512
ENTRY = struct.Struct("<QI?")                          # offset, length, whether it is a flush; then the data
Entry = collections.namedtuple("Entry", "offset data is_flush end")

# Of linux/fuse.h, protocol 7.31.
IN_HEADER, OUT_HEADER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT = 1, 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26
OPENDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE = 27, 29, 36, 38, 42, 43
ASYNC_READ, BIG_WRITES, MAX_PAGES = 1 << 0, 1 << 5, 1 << 22
MAX_WRITE, KEEP_CACHE, FOREVER = 1 << 20, 2, 1 << 30
ROOT, DISK, NAME = 1, 2, b"disk"


def read_log(path):
    """The entries of a log; `end` is the position behind each."""
    with open(path, "rb") as file:
        while len(header := file.read(ENTRY.size)) == ENTRY.size:
            offset, length, is_flush = ENTRY.unpack(header)
            yield Entry(offset, file.read(length), is_flush, file.tell())


class Server:
    """Answers the kernel's requests until the file system is unmounted."""

    def __init__(self, fuse, size, log):
        self.fuse, self.log, self.content = fuse, open(log, "wb", buffering=0), bytearray(size)

    def run(self):
        while True:
            try:
                request = os.read(self.fuse, MAX_WRITE + BLOCK)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return                                 # ENODEV: unmounted
            _, kind, unique, node, *_ = IN_HEADER.unpack_from(request)
            if kind in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            try:
                body, code = self.answer(kind, node, memoryview(request)[IN_HEADER.size:]), 0
            except OSError as error:
                body, code = b"", -error.errno
            with contextlib.suppress(FileNotFoundError):   # the request was interrupted
                os.write(self.fuse, OUT_HEADER.pack(OUT_HEADER.size + len(body), code, unique) + body)

    def answer(self, kind, node, body):
        if kind == INIT:
            flags = ASYNC_READ | BIG_WRITES | MAX_PAGES
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, MAX_WRITE, flags, 16, 12, MAX_WRITE, 1, MAX_WRITE // BLOCK, 0, 0)
        if kind == LOOKUP:
            if bytes(body).rstrip(b"\0") != NAME:
                raise OSError(errno.ENOENT, "")
            return struct.pack("<QQQQII", DISK, 0, FOREVER, FOREVER, 0, 0) + self.attributes(DISK)
        if kind in (GETATTR, SETATTR):
            return struct.pack("<QII", FOREVER, 0, 0) + self.attributes(node)
        if kind in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, KEEP_CACHE, 0)
        if kind == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return bytes(self.content[offset:offset + size])
        if kind == WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            data = bytes(body[40:40 + size])
            self.content[offset:offset + size] = data
            self.note(offset, data, False)
            return struct.pack("<II", size, 0)
        if kind == FSYNC:
            self.note(0, b"", True)
            return b""
        if kind == STATFS:
            return struct.pack("<5Q4I24x", 0, 0, 0, 2, 0, BLOCK, 255, BLOCK, 0)
        if kind in (RELEASE, RELEASEDIR, FLUSH, DESTROY):
            return b""
        raise OSError(errno.EOPNOTSUPP if kind == FALLOCATE else errno.ENOSYS, "")

    def note(self, offset, data, is_flush):
        self.log.write(ENTRY.pack(offset, len(data), is_flush) + data)

    def attributes(self, node):
        size = len(self.content) if node == DISK else 0
        mode = stat.S_IFREG | 0o600 if node == DISK else stat.S_IFDIR | 0o700
        return ATTRIBUTES.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, BLOCK, 0)


class LoggedDisk:
    """The disk, while it is entered: `device` is its loop device, `log` the path of its log."""

    def __init__(self, scratch, mib):
        self.size, self.scratch = mib << 20, pathlib.Path(scratch)
        self.log, self.fuse_point, self.mount_point = (self.scratch / name for name in ("log", "fuse", "logged"))

    def __enter__(self):
        self.cleanup, self.server = contextlib.ExitStack(), None
        try:
            for point in (self.fuse_point, self.mount_point):
                point.mkdir(exist_ok=True)
            fuse = os.open("/dev/fuse", os.O_RDWR)
            os.set_inheritable(fuse, True)
            options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
            subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "shoal-log", self.fuse_point], pass_fds=[fuse], check=True)
            # Last in, first out: the server ends when its file system is unmounted.
            self.cleanup.callback(lambda: self.server and self.server.join(5))
            self.cleanup.callback(output, "umount", self.fuse_point)
            self.server = multiprocessing.get_context("fork").Process(target=Server(fuse, self.size, self.log).run, daemon=True)
            self.server.start()
            os.close(fuse)
            self.device = output("losetup", "--find", "--show", self.fuse_point / NAME.decode()).strip()
            self.cleanup.callback(output, "losetup", "--detach", self.device)
        except BaseException:
            self.cleanup.close()
            raise
        return self

    def __exit__(self, *_):
        self.cleanup.close()

    @contextlib.contextmanager
    def mounted(self):
        output("mount", self.device, self.mount_point)
        try:
            yield
        finally:
            output("umount", self.mount_point)

    def position(self):
        """Bytes of the log so far."""
        return self.log.stat().st_size
