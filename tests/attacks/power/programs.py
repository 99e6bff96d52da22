"""What is recorded: real saves of a child of the forge, and the same with one mechanism switched off."""

from __future__ import annotations

import os
import random
import stat
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from attacks.power.history import MARK
from attacks.power.system_calls import wait_until_recorded
from catalog.conftest import metadata
from nets import Net, loader, trainer
from saving.test_save_task import RUN, Refusing, Saving

from checkpointable.policy.names import KEY
from checkpointable.saving import repository
from checkpointable.saving.kept_files import KeptFiles
from checkpointable.saving.save_task import SaveResult, SaveTask
from checkpointable.storage import commit
from checkpointable.storage.staging.snapshot import Snapshot


def run(where: str, program: str, twin: str | None = None, **options: Any) -> None:
    """Run a program below a directory that is there, recorded. The process ends at once, as its own end takes long."""
    warnings.simplefilter("ignore")
    _mark_what_is_durable()
    repository.of_script = repository.Repository  # git would be another process in the record; it writes nothing
    if twin is not None:
        _TWINS[twin]()
    wait_until_recorded()
    PROGRAMS[program](Path(where), **options)
    os._exit(0)


def _mark_what_is_durable() -> None:
    """Show in the record what the library reports to be durable, at the moment when it does."""
    publish = SaveTask._publish

    def marked(task: SaveTask, kept: KeptFiles) -> None:
        publish(task, kept)
        position, best = kept.last_position, next(iter(kept.scores.values()), None)
        if position is not None:
            os.access(f"{MARK.decode()}{position.batches}/{best}", os.F_OK)

    SaveTask._publish = marked


def _without_sync_of(is_kind: Callable[[int], bool]) -> None:
    sync = os.fsync

    def skipping(descriptor: int) -> None:
        if not is_kind(os.fstat(descriptor).st_mode):
            sync(descriptor)

    os.fsync = skipping


def _named_early() -> None:
    def early(
        path: Path, write: Callable[[BinaryIO], None], *, problem: Callable[[Path], str | None], overwrite: bool
    ) -> None:
        commit.make(path.parent)
        with commit.temporary_in(path.parent) as temporary, open(temporary, "x+b") as file:
            commit._publish(temporary, path, overwrite=overwrite)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        commit.sync_name(path)

    commit.commit = early


_TWINS: dict[str, Callable[[], None]] = {
    "no sync of files": lambda: _without_sync_of(stat.S_ISREG),
    "no sync of directories": lambda: _without_sync_of(stat.S_ISDIR),
    "named early": _named_early,
}


def _saving(where: Path, *, below: bool = False, scores: Mapping[int, float], **options: Any) -> Saving:
    """A run in a directory that is not there, nor its parents, and the scores of its batches that are best."""
    store = Refusing(where / "runs" / "a" / "checkpoints")
    store.prepare(below=below)
    run = Saving(store, **options)
    run.content = partial(_content, scores=scores)
    return run


def _content(batch: int, *, values: int, scores: Mapping[int, float]) -> Snapshot:
    """A checkpoint of which the optimizer is two thirds."""
    score = scores.get(batch)
    scored = {} if score is None else {"score": {"monitor": "val_loss", "mode": "min", "value": score}}
    described = metadata(run_id=RUN, batch=batch, batches=batch, kind="best" if scored else "interval", **scored)
    weights = torch.full((values,), float(batch))
    state = {"exp_avg": weights.clone(), "exp_avg_sq": weights.clone()}
    ours = {"ranks": [1], "gradients": {}, "sums": None, "metadata": described}
    checkpoint = {"state_dict": {"weight": weights}, "optimizer_states": [state], "loops": {}, "callbacks": {}}
    return Snapshot({**checkpoint, KEY: ours}, described)


def _save(run: Saving, batch: int, values: int) -> SaveResult:
    score = run.content.keywords["scores"].get(batch)
    return run.save(batch, *(() if score is None else ("best",)), score=score, values=values)


def _saves(where: Path, *, values: Sequence[int] = (200, 5000), below: bool = False, **options: Any) -> None:
    """Newest files and best ones in turn, of which outdated ones are deleted."""
    run = _saving(where, below=below, scores={2: 0.5, 4: 0.7, 5: 0.3}, **options)
    for batch in range(1, 8):
        assert _save(run, batch, values[batch % len(values)]).problem is None


def _in_directories_of_others(where: Path) -> None:
    """Files go into a directory that the script makes, and does not sync."""
    run = _saving(where, below=True, scores={}, filename="e{epoch}/of_the_script/{batch}")
    Path(run.store.path("e0/of_the_script")).mkdir(parents=True)
    for batch in range(1, 4):
        assert _save(run, batch, 200).problem is None


def _tight(where: Path) -> None:
    """The best file is reduced to its weights, and given up later."""
    run, messages = _saving(where, scores={1: 0.5}), []
    size = run.content(1, values=50_000).size
    for batch, room in enumerate((9.0, 9.0, 2.5, 2.5, 2.2, 2.2), 1):
        run.store.room = int(room * size)
        messages += _save(run, batch, 50_000).messages
    assert any("was reduced to its weights" in it for it in messages)


def _drawn(where: Path, seed: int) -> None:
    """Saves with drawn options, names, sizes and scores, in half of the runs on a disk with little room."""
    draw = random.Random(seed)
    name, best = draw.choice([("epoch_{epoch}_batch_{batch}", "good_{epoch}"), ("x", "y"), ("{batch}/x", "b{epoch}/x")])
    run = _saving(
        where,
        below="/" in name,
        scores={batch: draw.random() for batch in range(1, 11) if draw.random() < 0.4},
        save_last_k=draw.choice((1, 1, 2, -1)),
        save_top_k=draw.choice((1, 1, 2, -1)),
        filename=name,
        best_filename=best,
    )
    is_tight, size = draw.random() < 0.5, run.content(1, values=5000).size
    for batch in range(1, 11):
        run.store.room = int(draw.uniform(2.0, 4.5) * size) if is_tight else None
        _save(run, batch, 5000 if is_tight else draw.choice((200, 5000, 40_000)))


def _fit(where: Path) -> None:
    net = Net(dirpath=where / "runs" / "a", save_interval=2)
    trainer(where, max_epochs=2, num_sanity_val_steps=0).fit(net, loader(5), loader(2, seed=1))


def _sharded(where: Path) -> None:
    from attacks.sharded import Parted  # imports much of torch
    from lightning.pytorch.strategies import ModelParallelStrategy

    torch.manual_seed(0)
    net = Parted(dirpath=where / "runs" / "a", save_interval=2)
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    trainer(where, num_sanity_val_steps=0, strategy=strategy).fit(net, loader(6), loader(2, seed=1))


PROGRAMS: dict[str, Callable[..., None]] = {
    "saves": _saves,
    "large": partial(_saves, values=(200, 100_000, 400_000)),
    "fixed names": partial(_saves, filename="newest", best_filename="good"),
    "deeper": partial(_saves, below=True, filename="e{epoch}/{batch}/x", best_filename="b/{batch}"),
    "directories of others": _in_directories_of_others,
    "several kept": partial(_saves, save_last_k=2, save_top_k=2),
    "tight": _tight,
    "drawn": _drawn,
    "fit": _fit,
    "sharded": _sharded,
}
