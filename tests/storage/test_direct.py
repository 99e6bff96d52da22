"""Writing and reading past the page cache gives the same bytes, whatever the size and the file system."""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpointable.storage import direct

pytestmark = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct writes")

UNIT, SMALL, BLOCK, STAYS = 1 << 12, 1 << 22, 1 << 23, 1 << 20
SIZES = [0, 1, UNIT - 1, UNIT, UNIT + 1, SMALL - 1, SMALL, SMALL + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + UNIT]
SIZES += [2 * BLOCK + UNIT + 77]


@pytest.fixture(autouse=True)
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tests before these were refused in this process."""
    monkeypatch.setattr(direct, "_IS_SHORT_OF_MEMORY", threading.Event())


class Bytes:
    """Content, in pieces of every length."""

    def __init__(self, data: bytes, seed: int = 0) -> None:
        self.data = data
        self.seed = seed

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self) -> Iterator[memoryview]:
        rng, start, view = random.Random(self.seed), 0, memoryview(self.data)
        while start < len(view):
            length = rng.choice([0, 1, 30, UNIT, UNIT + 1, 1 << 20, BLOCK, BLOCK + 3, 2 * BLOCK])
            yield view[start : start + length]
            start += length


NOISE = random.Random(1).randbytes(2 * BLOCK + 2 * UNIT)


def write(path: Path, data: bytes, seed: int = 0) -> None:
    with open(path, "x+b") as file:
        direct.write(Bytes(data, seed), file)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


class System:
    """What the file system is asked, and how it refuses."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.direct: list[bool] = []
        self._write = os.write

    def refuse_flag(self) -> None:
        original = fcntl.fcntl

        def refusing(descriptor: int, command: int, flags: int = 0) -> int:
            if command == fcntl.F_SETFL and flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return original(descriptor, command, flags)

        self.patch.setattr(fcntl, "fcntl", refusing)

    def refuse_direct_writes(self, code: int = errno.EINVAL, after: int = 0) -> None:
        def refusing(descriptor: int, data: memoryview) -> int:
            is_direct = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
            self.direct.append(is_direct)
            if is_direct and len(self.direct) > after:
                raise OSError(code, os.strerror(code))
            return self._write(descriptor, data)

        self.patch.setattr(os, "write", refusing)

    def write_short(self, lengths: list[int]) -> None:
        rng = random.Random(5)

        def short(descriptor: int, data: memoryview) -> int:
            self.direct.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
            return self._write(descriptor, data[: rng.choice(lengths)])

        self.patch.setattr(os, "write", short)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    return System(monkeypatch)


@pytest.mark.parametrize("size", SIZES[1:])
def test_write_of_this_size_gives_the_bytes(tmp_path, size):
    write(tmp_path / "a", NOISE[:size], seed=size)
    assert (tmp_path / "a").read_bytes() == NOISE[:size]


@pytest.mark.parametrize(("size", "expected"), [(SMALL - 1, False), (SMALL, True), (BLOCK + 1, True)])
def test_write_of_a_large_file_is_direct_and_of_a_small_one_is_not(tmp_path, system, size, expected):
    system.write_short([BLOCK])
    write(tmp_path / "a", NOISE[:size])
    if expected and not any(system.direct):
        pytest.skip("this file system takes no direct writes")
    assert set(system.direct) == {expected}


def test_write_leaves_the_file_without_the_flag_for_direct_writes(tmp_path):
    with open(tmp_path / "a", "x+b") as file:
        direct.write(Bytes(NOISE[:SMALL]), file)
        assert not fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT


@pytest.mark.parametrize("size", [SMALL + 1, BLOCK + UNIT + 5])
def test_write_in_memory_gives_the_bytes(tmpfs, size):
    write(tmpfs / "a", NOISE[:size])
    with direct.open_file(tmpfs / "a") as file:
        assert file.read() == NOISE[:size]


def test_write_where_the_flag_is_refused_gives_the_bytes(tmp_path, system):
    system.refuse_flag()
    write(tmp_path / "a", NOISE)
    assert (tmp_path / "a").read_bytes() == NOISE


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
@pytest.mark.parametrize("after", [0, 1])
def test_write_that_is_refused_though_the_flag_was_taken_goes_through_the_cache(tmp_path, system, after, code):
    system.refuse_direct_writes(code, after)
    write(tmp_path / "a", NOISE)
    assert (tmp_path / "a").read_bytes() == NOISE
    assert system.direct[-1] is False


def test_write_on_a_full_disk_raises_and_is_not_tried_again(tmp_path, monkeypatch):
    tried = []

    def full(descriptor: int, data: memoryview) -> int:
        tried.append(len(data))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path / "a", NOISE)
    assert tried == [BLOCK]


@pytest.mark.parametrize("lengths", [[UNIT], [1 << 20, UNIT, 512], [777, UNIT, 1 << 20], [1 << 21, 1]])
def test_write_that_takes_less_than_it_is_given_gives_the_bytes(tmp_path, system, lengths):
    data = NOISE[: SMALL + 333]
    system.write_short(lengths)
    write(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == data


def test_block_stays_as_it_is_while_the_next_one_is_made():
    parts = direct._parts(Bytes(NOISE), direct._take_two())
    (first,) = next(parts)
    assert next(parts)[0][:UNIT] == NOISE[BLOCK : BLOCK + UNIT]
    assert first == NOISE[:BLOCK]
    assert next(parts)[0][:UNIT] == NOISE[2 * BLOCK :][:UNIT]
    assert first != NOISE[:BLOCK], "the twin: it does not stay for longer, so there are never more than two"


class Placed(Bytes):
    """Content whose large pieces lie in memory as they will in the file, so far from the right place."""

    def __init__(self, data: bytes, *, off: int = 0) -> None:
        super().__init__(data)
        self.image = memoryview(mmap.mmap(-1, len(data) + 2 * UNIT))[off : off + len(data)]
        self.image[:] = data
        self.ends: list[int] = []

    def pieces(self) -> Iterator[memoryview]:
        start = 0
        for end in [*self.ends, self.size]:
            yield self.image[start:end]
            start = end


def copied(content: Bytes) -> int:
    """How many bytes are not written from where they are."""
    blocks = direct._take_two()
    places = [range(at, at + BLOCK) for at in map(direct._address, blocks)]
    parts = direct._parts(content, blocks)
    return sum(len(view) for part in parts for view in part if any(direct._address(view) in it for it in places))


@pytest.mark.parametrize("seed", range(12))
def test_large_pieces_are_written_from_where_they_are(tmp_path, seed):
    rng = random.Random(seed)
    content = Placed(NOISE[: len(NOISE) - rng.randrange(3 * UNIT)])
    steps = [rng.choice([1, 30, UNIT - 1, UNIT, 70_000, STAYS, STAYS + 1, BLOCK, BLOCK + 3]) for _ in range(99)]
    content.ends = [end for end in itertools.accumulate(steps) if end < content.size]
    with open(tmp_path / "a", "x+b") as file:
        direct.write(content, file)
    assert (tmp_path / "a").read_bytes() == content.data
    lengths = [after - before for before, after in itertools.pairwise([0, *content.ends, content.size])]
    least = sum(length for length in lengths if length < STAYS)
    assert least <= copied(content) <= least + 2 * UNIT * (len(lengths) + 3)


def test_large_pieces_at_other_addresses_are_copied(tmp_path):
    content = Placed(NOISE, off=512)
    with open(tmp_path / "a", "x+b") as file:
        direct.write(content, file)
    assert (tmp_path / "a").read_bytes() == NOISE
    assert copied(content) == content.size


@pytest.mark.parametrize("lengths", [[UNIT], [1 << 20, UNIT, 512], [777, UNIT, 1 << 20], [1 << 21, 1]])
def test_write_of_several_pieces_that_takes_less_than_it_is_given_gives_the_bytes(tmp_path, monkeypatch, lengths):
    rng, real, calls = random.Random(3), os.writev, []

    def short(descriptor: int, views: list[memoryview]) -> int:
        calls.append(len(views))
        return os.write(descriptor, b"".join(views)[: rng.choice(lengths)])

    monkeypatch.setattr(os, "writev", short)
    content = Placed(NOISE[: SMALL + 333])
    content.ends = [5000]
    with open(tmp_path / "a", "x+b") as file:
        direct.write(content, file)
    assert calls
    assert (tmp_path / "a").read_bytes() == content.data
    monkeypatch.setattr(os, "writev", real)


def test_write_on_a_system_that_takes_one_piece_at_a_time_gives_the_bytes(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "writev")
    content = Placed(NOISE)
    content.ends = [5000, BLOCK]
    with open(tmp_path / "a", "x+b") as file:
        direct.write(content, file)
    assert (tmp_path / "a").read_bytes() == NOISE


def test_blocks_of_memory_are_used_again_and_by_one_file_at_a_time(tmp_path):
    direct._SPARE.clear()
    write(tmp_path / "a", NOISE)
    spare = list(direct._SPARE)
    (tmp_path / "b").write_bytes(NOISE[::-1])
    with direct.open_file(tmp_path / "a") as first, direct.open_file(tmp_path / "b") as second:
        assert direct._SPARE == []
        assert {id(first.raw._block), id(first.raw._next)} == {id(block) for block in spare}
        assert [first.read(BLOCK), second.read(BLOCK)] == [NOISE[:BLOCK], NOISE[::-1][:BLOCK]]
        write(tmp_path / "c", NOISE[5:])
        assert first.read() == NOISE[BLOCK:]
    assert (tmp_path / "c").read_bytes() == NOISE[5:]
    assert len(direct._SPARE) == 2, "no more are kept"
    first.close()
    assert len({id(block) for block in direct._SPARE}) == 2, "none is given back twice"


def test_process_that_is_short_of_memory_keeps_no_blocks(tmp_path):
    write(tmp_path / "a", NOISE)
    assert direct._SPARE
    direct.keep_no_blocks()
    assert direct._SPARE == []
    write(tmp_path / "b", NOISE)
    assert direct._SPARE == []
    assert (tmp_path / "b").read_bytes() == NOISE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_has_no_memory_of_its_parent(tmp_path):
    write(tmp_path / "a", NOISE)
    assert direct._SPARE
    child = os.fork()
    if child == 0:
        os._exit(len(direct._SPARE))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_does_not_take_the_memory_of_a_file_that_its_parent_reads(tmp_path):
    write(tmp_path / "a", NOISE)
    with direct.open_file(tmp_path / "a") as file:
        file.read(5)
        child = os.fork()
        if child == 0:
            file.raw._thread = threading.Event()  # there are no threads in a child
            file.raw._thread.shutdown = lambda: None
            file.close()
            os._exit(len(direct._SPARE))
        assert os.waitpid(child, 0)[1] == 0
        assert file.read() == NOISE[5:]


def test_write_where_no_thread_can_be_started_gives_the_bytes(tmp_path, monkeypatch):
    def refusing(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refusing)
    write(tmp_path / "a", NOISE)
    assert (tmp_path / "a").read_bytes() == NOISE


@pytest.mark.parametrize("size", SIZES)
def test_reader_reads_all_bytes(tmp_path, size):
    (tmp_path / "a").write_bytes(NOISE[:size])
    with direct.open_file(tmp_path / "a") as file:
        assert file.readable()
        assert file.seekable()
        assert file.read() == NOISE[:size]
        assert file.read(1) == b""
        assert file.tell() == size


@pytest.mark.parametrize("size", [1000, SMALL - 5, SMALL + 5, 2 * BLOCK + 1234])
def test_reader_at_any_place_gives_what_plain_reading_gives(tmp_path, size):
    (tmp_path / "a").write_bytes(NOISE[:size])
    rng = random.Random(size)
    with direct.open_file(tmp_path / "a") as file, open(tmp_path / "a", "rb") as plain:
        for _ in range(150):
            whence = rng.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
            base = {os.SEEK_SET: 0, os.SEEK_CUR: plain.tell(), os.SEEK_END: size}[whence]
            place = rng.choice([rng.randrange(size), rng.randrange(size) // UNIT * UNIT, size, size - 1, size + 10, 0])
            assert file.seek(place - base, whence) == plain.seek(place - base, whence)
            length = rng.choice([0, 1, 7, UNIT, UNIT + 1, 1 << 16])
            wanted = plain.read(length)
            found = b""
            while len(found) < length and (more := file.read(length - len(found))):
                found += more
            assert found == wanted
            assert file.tell() == plain.tell()


@pytest.mark.parametrize(("size", "expected"), [(SMALL - 1, False), (SMALL, True)])
def test_reader_of_a_large_file_is_direct_and_of_a_small_one_is_not(tmp_path, size, expected):
    (tmp_path / "a").write_bytes(NOISE[:size])
    with direct.open_file(tmp_path / "a") as file:
        is_direct = bool(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT)
    if expected and not is_direct:
        pytest.skip("this file system takes no direct reads")
    assert is_direct is expected


def test_reader_where_direct_reads_cannot_be_opened_reads_through_the_cache(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(NOISE)
    original = os.open

    def refusing(path, flags, *args, **kwargs):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return original(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)
    with direct.open_file(tmp_path / "a") as file:
        assert file.read() == NOISE


def test_reader_where_direct_reads_are_refused_reads_through_the_cache(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(NOISE)
    original = os.preadv

    def refusing(descriptor, buffers, offset):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return original(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", refusing)
    with direct.open_file(tmp_path / "a") as file:
        assert file.read() == NOISE


def test_reader_of_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        direct.open_file(tmp_path / "none")


def test_reader_that_fails_to_read_raises_and_closes(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(NOISE)

    def broken(descriptor, buffers, offset):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    with direct.open_file(tmp_path / "a") as file, pytest.raises(OSError, match="Input/output error"):
        file.read(10)
    assert file.closed
    file.close()


def test_views_at_any_place_show_the_bytes_and_end_where_the_file_does(tmp_path):
    (tmp_path / "a").write_bytes(NOISE)
    rng = random.Random(3)
    with direct.open_file(tmp_path / "a") as file:
        for _ in range(60):
            at, size = rng.randrange(len(NOISE)), rng.choice([1, UNIT, BLOCK, BLOCK + 1, len(NOISE)])
            assert b"".join(bytes(view) for view in file.raw.views(at, size)) == NOISE[at : at + size]
            assert file.tell() == 0


def test_block_that_is_read_ahead_and_fails_raises_only_where_it_is_wanted(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(NOISE)
    original = os.preadv

    def broken_after_the_first(descriptor, buffers, offset):
        if offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", broken_after_the_first)
    with direct.open_file(tmp_path / "a") as file:
        assert file.read(BLOCK) == NOISE[:BLOCK]
        file.seek(0)
        assert file.read(10) == NOISE[:10]
        file.seek(BLOCK)
        with pytest.raises(OSError, match="Input/output error"):
            file.read(10)


def test_reader_that_can_start_no_thread_reads_all_bytes(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(NOISE)

    def refusing(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refusing)
    with direct.open_file(tmp_path / "a") as file:
        assert file.read() == NOISE
