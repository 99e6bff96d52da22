"""Records the system calls of a child of the forge with ``strace``, with all bytes that are written, and reads them.

``strace`` cuts strings short, unless it is told to take more of them than any call has.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks.forge import Ended, Forge

_LONGEST = 1 << 24  # bytes of one write
_TRACED = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "link,linkat,symlink,symlinkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,access,faccessat,"
    "faccessat2,fork,vfork,clone,clone3,writev,pwritev,pwritev2,sendfile,copy_file_range,splice,sync,syncfs"
)
_WHOLE = re.compile(rb"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)", re.DOTALL)
_BEGUN = re.compile(rb"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$", re.DOTALL)
_ENDED = re.compile(rb"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+|\?)", re.DOTALL)
_ANYBODY = (1 << 64) - 1
_SET_PTRACER = 0x59616D61


@dataclass(frozen=True)
class Call:
    """One call, when it has returned.

    Attributes:
        before: How many other calls had returned when it began. Those may have been made by other threads.
    """

    name: str
    arguments: Sequence[bytes]
    result: int
    before: int


def why_not() -> str | None:
    """Why nothing can be recorded here; ``None`` if it can."""
    if shutil.which("strace") is None:
        return "there is no strace on the PATH"
    try:
        tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"strace does not work here: {error}"
    return None if tried.returncode == 0 else f"strace does not work here: {tried.stderr.strip()}"


def record(forge: Forge, function: str, to: Path, **arguments: Any) -> Ended:
    """Run a child, which begins with ``wait_until_recorded``, and write its calls down."""
    child = forge.start(function, **arguments)
    command = ["strace", "-f", "-xx", "-s", str(_LONGEST), "-e", f"trace={_TRACED}", "-o", to, "-p", str(child.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        ended = child.end()
        _, errors = strace.communicate()
    assert ended.code == 0, f"{ended.errors}\n{errors}"
    return ended


def wait_until_recorded() -> None:
    """In the child: go on once ``strace`` has attached."""
    ctypes.CDLL(None).prctl(_SET_PTRACER, ctypes.c_ulong(_ANYBODY), 0, 0, 0)  # where only ancestors may, by Yama
    deadline = time.monotonic() + 60
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        assert time.monotonic() < deadline, "strace has not attached"
        time.sleep(0.001)


def read(record: Path) -> Iterator[Call]:
    """The calls of a record, in the order in which they returned.

    A file descriptor is free for others before ``close`` returns, so ``close`` counts when it begins.
    """
    begun: dict[bytes, tuple[bytes, int]] = {}
    returned = 0
    with open(record, "rb") as lines:
        for line in lines:
            if found := _BEGUN.match(line.rstrip()):
                thread, name, arguments = found.groups()
                if name == b"close":
                    yield Call("close", _split(arguments), 0, returned)
                    returned += 1
                else:
                    begun[thread] = arguments, returned
                continue
            arguments, before = b"", returned
            if found := _ENDED.match(line):
                if found[2] == b"close":
                    continue
                arguments, before = begun.pop(found[1])
            else:
                found = _WHOLE.match(line)
            if found is not None and found[4] != b"?":
                yield Call(found[2].decode(), _split(arguments + found[3]), int(found[4]), before)
                returned += 1


def _split(arguments: bytes) -> list[bytes]:
    return [_text(it) for it in arguments.split(b", ")]


def _text(argument: bytes) -> bytes:
    """The bytes of a string, which is written in hexadecimal; of anything else what is written."""
    argument = argument.strip().lstrip(b"[{").removeprefix(b"iov_base=")  # of ``writev``
    if not argument.startswith(b'"'):
        return argument
    assert argument.endswith(b'"'), "a string was cut short"
    return bytes.fromhex(argument[1:-1].replace(b"\\x", b"").decode())
