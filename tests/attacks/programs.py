"""What the children of the forge do: train, save, and be struck down."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import random
import resource
import signal
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from nets import Net, loader, trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader

from checkpointable import CheckpointableWarning, latest
from checkpointable.saving.save_task import SaveTask
from checkpointable.storage import commit
from checkpointable.storage.format import verify
from checkpointable.storage.staging import unowned

_NOBODY = 65534
_HEAVY = 1 << 23  # rows of three numbers of four bytes: 96 MB
CALLS = ("write", "writev", "ftruncate", "fsync", "link", "replace", "symlink", "unlink")


class Large(Net):
    """Has tensors that are copied while training goes on, and momentum for them."""

    def __init__(self, features: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.layer = torch.nn.Linear(2, 1 << 14)
        self.head = torch.nn.Linear(1 << 14, features)

    def compute_loss(self, batch: Any, batch_idx: int) -> Any:
        inputs, labels = batch
        return F.cross_entropy(self.head(self.layer(inputs)), labels)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-4, momentum=0.9)


class Calls:
    """Counts the calls by which a save reaches memory and disk, writes them down, and strikes at one of them.

    Args:
        record: A line for each call when it has returned.
        strike: The number of the call before which this process is killed; 0: none.
        names: The calls.
    """

    def __init__(self, record: Path, strike: int, names: Sequence[str] = CALLS) -> None:
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._strike = strike
        self._count = 0
        self._lock = threading.Lock()
        self._write = os.write
        for name in names:
            setattr(os, name, self._counted(name, getattr(os, name)))
        ctypes.memmove = self._counted("memmove", ctypes.memmove)
        unowned.copy = self._counted("memmove", unowned.copy)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self._count += 1
                number = self._count
            if number == self._strike:
                if name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                elif name == "writev":
                    call(args[0], [args[1][0], args[1][1][: len(args[1][1]) // 2]])
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            what = " ".join(os.fsdecode(arg) for arg in args if isinstance(arg, (str, os.PathLike)))
            self._write(self._record, f"{number} {name} {what}\n".encode())
            return result

        return counted


def in_place(path: Path, write: Callable[..., None], *, seen: Path | None = None, **_: Any) -> None:
    """The twin of the commit: without a temporary file, and slowly. Half a file stays until ``seen`` is there."""
    with open(path, "w+b") as file:
        write(file)
        size = file.truncate(file.seek(0, os.SEEK_END) // 2)
        time.sleep(0.02)
        while seen is not None and not seen.exists():
            time.sleep(0.001)
        file.truncate(0)
        file.seek(0)
        write(file)
        assert file.seek(0, os.SEEK_END) > size
        os.fsync(file.fileno())


def delete_first(task: SaveTask) -> None:
    """The twin of the order: room is made before the new file is there, whether or not another one stays."""
    task._delete(task.kept.kept)


class At(L.Callback):
    """Does something at the ends of batches, before their safe points: ``At({3: do})`` at that of the third."""

    def __init__(self, things: Mapping[int, Callable[[], Any]]) -> None:
        self.things = things
        self.batches = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1
        self.things.get(self.batches, bool)()


class Settled(L.Callback):
    """Has every save done at the end of the next batch, however slow the machine is."""

    def on_train_batch_end(self, *args: Any) -> None:
        writing_is_over()


def writing_is_over() -> None:
    """Wait for the thread that writes in the background, if there is one."""
    for thread in threading.enumerate():
        if thread.name == "checkpointable-writer":
            thread.join()


@contextlib.contextmanager
def told() -> Iterator[list[str]]:
    """What the library warned of."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=CheckpointableWarning)
        try:
            yield messages
        finally:
            messages += [str(it.message) for it in caught if issubclass(it.category, CheckpointableWarning)]


def train(
    where: str,
    record: str | None = None,
    strike: int = 0,
    twin: str | None = None,
    seen: str | None = None,
    epochs: int = 2,
    batches: int = 6,
    validates: bool = True,
    start: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Go on from the newest file, to the end. With ``start``: once that file is there."""
    warnings.simplefilter("ignore")
    if twin == "in place":
        commit.commit = functools.partial(in_place, seen=seen and Path(seen))
    elif twin == "delete first":
        SaveTask._make_room = delete_first
    place = Path(where)
    ckpt_path = latest(place)
    if record is not None:
        Calls(Path(record), strike)
    if start is not None:
        Path(start + ".ready").touch()
        while not os.path.exists(start):
            time.sleep(0.001)
    torch.manual_seed(random.randrange(1 << 30) if ckpt_path else 0)
    net = Large(dirpath=place, **{"save_interval": 2, **options})
    loaders = (loader(batches), loader(2, seed=1)) if validates else (loader(batches),)
    with told() as messages:
        trainer(place, max_epochs=epochs, num_sanity_val_steps=0).fit(net, *loaders, ckpt_path=ckpt_path)
    return {"last": net.last_model_path, "best": net.best_model_path, "told": messages}


def locked(where: str, lock_at: int, unlock_at: int, batches: int) -> list[str]:
    """Train as a user whose directory loses the permission to write at a batch, and gets it back at another."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as aside:  # loads what is loaded late: another user may not read the packages
        trainer(Path(aside)).fit(Net(dirpath=aside, save_interval=1), loader(2))
    if os.geteuid() == 0:
        os.chown(where, _NOBODY, _NOBODY)
        os.seteuid(_NOBODY)
    things = {lock_at: lambda: os.chmod(where, 0o555), unlock_at: lambda: os.chmod(where, 0o755)}
    warnings.simplefilter("ignore")
    with told() as messages:
        net = Net(dirpath=where, save_interval=2, save_last_k=-1)
        trainer(Path(where), callbacks=[Settled(), At(things)]).fit(net, loader(batches))
    if os.getuid() == 0:
        os.seteuid(0)
    return messages


def read(where: str, until: str, seen: str | None = None) -> dict[str, Any]:
    """Load every checkpoint that is seen, again and again. A file may go; none may be damaged.

    With ``seen``: that file is made once a damaged one was seen.
    """
    done, damaged, missing = 0, [], 0
    while not os.path.exists(until):
        for path in Path(where).glob("*.ckpt"):
            try:
                torch.load(path, weights_only=True)
            except FileNotFoundError:
                continue
            except Exception as error:  # noqa: BLE001  # whatever it is, it is reported
                damaged.append(f"{path.name}: {error!r}")
            problem = verify.problem(path)
            if problem not in (None, "there is no such file"):
                damaged.append(f"{path.name}: {problem}")
            done += 1
        if damaged and seen is not None:
            Path(seen).touch()
        missing += done > 0 and latest(where) is None
    return {"done": done, "damaged": damaged, "missing": missing}


def with_little_memory(where: str, room: int) -> list[str]:
    """Train 96 MB of weights, of which no second copy has room from the end of the first batch on."""

    class Heavy(Net):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.layer = torch.nn.Linear(2, _HEAVY)

        def compute_loss(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch[0][:1]).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

    warnings.simplefilter("ignore")
    with told() as messages:
        net = Heavy(dirpath=where, save_interval=2)
        trainer(Path(where), callbacks=[At({1: limit})]).fit(net, loader(5))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    saved = torch.load(net.last_model_path, weights_only=True, mmap=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in net.state_dict().items())
    return messages


def slow_sync(seconds: float) -> None:
    """A disk on which files take so long to become durable."""
    sync = os.fsync

    def slow(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            time.sleep(seconds)
        sync(descriptor)

    os.fsync = slow


def leave(where: str, how: str) -> None:
    """End the process right after a save has begun."""

    def go() -> None:
        if how == "sys.exit":
            sys.exit(3)
        os.kill(os.getpid(), {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}[how])

    warnings.simplefilter("ignore")
    slow_sync(0.5)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    net = Net(dirpath=where, save_interval=2, save_on_exception=how != "sys.exit")
    trainer(Path(where), callbacks=[At({3: go})]).fit(net, loader(9))


def fork_workers(where: str, workers: int) -> dict[str, Any]:
    """Start worker processes for validation while a save is under way."""
    busy, forked, sync = [], threading.Event(), os.fsync

    def held(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            assert forked.wait(300)
        sync(descriptor)

    class Noting(L.Callback):
        def on_validation_start(self, *args: Any) -> None:
            busy.append(any(thread.name == "checkpointable-writer" for thread in threading.enumerate()))

        def on_validation_batch_start(self, *args: Any) -> None:
            forked.set()

    os.fsync = held
    warnings.simplefilter("ignore")
    validation = DataLoader(loader(2).dataset, batch_size=4, num_workers=workers)
    net = Net(dirpath=where, save_interval=1, save_last_k=-1, save_top_k=0)
    options = {"val_check_interval": 2, "num_sanity_val_steps": 0}
    trainer(Path(where), callbacks=[Noting()], **options).fit(net, loader(6), validation)
    return {"busy": busy}


def train_anew(where: str, epochs: int) -> dict[str, Any]:
    """Another run of the same script, which does not go on from what is there."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    net = Large(dirpath=where, save_interval=2)
    trainer(Path(where), max_epochs=epochs, num_sanity_val_steps=0).fit(net, loader(6), loader(2, seed=1))
    return {"last": net.last_model_path, "best": net.best_model_path}
