"""A fit without a trainer: the real storage, kept files and catalogue, driven as the session does."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from checkpointable.catalog.info import FileMetadata, Score, read_info
from checkpointable.policy.names import KEY
from checkpointable.policy.options import Options
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.reasons import Reason
from checkpointable.saving.progress import Progress
from checkpointable.saving.save_task import SaveRequest, SaveResult, SaveTask
from checkpointable.saving.saver import Saver
from checkpointable.storage.local import write
from checkpointable.storage.staging.snapshot import Snapshot

BATCHES = 4  # of an epoch
_VALUES = 800
_BEGAN = 1_000_000.0  # seconds since the epoch of Unix time


def position_after(batches: int) -> Position:
    epoch = max(batches - 1, 0) // BATCHES
    return Position(epoch=epoch, batch=batches - epoch * BATCHES, step=batches, batches=batches)


class Fit:
    """One fit.

    Args:
        directory: Where it saves.
        ckpt_path: The file it resumes from.
        options: Arguments of the constructor.
    """

    def __init__(self, directory: Path, ckpt_path: Path | None, **options: Any) -> None:
        self.options = Options(dirpath=directory, save_interval=None, async_save=False, **options)
        self.progress, self.saver = Progress(), Saver(self.options)
        self.trainer: Any = SimpleNamespace(
            ckpt_path=None if ckpt_path is None else str(ckpt_path),
            callback_metrics={},
            is_global_zero=True,
            world_size=1,
            strategy=None,
        )

    def open(self) -> None:
        """As ``fit`` begins."""
        progress, path = self.progress, self.trainer.ckpt_path
        if path is not None:
            info = read_info(path)
            state: Any = SimpleNamespace(
                run_id=info.run_id,
                lineage=info.lineage,
                position=info.at,
                best_val_loss=0.0,
                ended=Ended.BATCH,
                stepped=(0, 0),
            )
            progress.take_over(state, resumes=True)
        generation = self.saver.open(self.trainer, self.options, progress.run_id, progress.lineage, progress.position)
        progress.lineage = progress.lineage.after(generation)

    def reach(self, batches: int) -> None:
        self.progress.position = position_after(batches)

    def request(self, reasons: frozenset[Reason], score: float | None) -> SaveRequest | None:
        """What is asked for; ``None`` if it is saved already."""
        request = self.progress.request(self.trainer, reasons, score, self.options)
        return None if self.saver.has(self.trainer, request) else request

    def save(self, request: SaveRequest, serial: int) -> SaveResult:
        content = content_of(self, request, serial)
        store = self.saver.store
        assert store is not None
        result = SaveTask(
            store=store,
            write=partial(store.write, content),
            size=content.size,
            request=request,
            kept=self.saver.kept,
            options=self.options,
            resumed_from=self.saver.resumed_from,
        ).run()
        self.saver.kept = result.kept
        return result

    def save_by_hand(self, path: Path, serial: int) -> None:
        """As ``trainer.save_checkpoint``."""
        write(content_of(self, None, serial), path, overwrite=True)


def content_of(fit: Fit, request: SaveRequest | None, serial: int) -> Snapshot:
    """A checkpoint of which the optimizer is two thirds; the weights tell it from all others."""
    reasons = frozenset({Reason.MANUAL}) if request is None else request.reasons
    score = None if request is None else request.score
    weights_only = request is not None and request.weights_only
    metadata = FileMetadata(
        kind=next(reason for reason in Reason if reason in reasons),
        reasons=tuple(sorted(reasons)),
        run_id=fit.progress.run_id,
        lineage=fit.progress.lineage,
        **asdict(fit.progress.position),
        metrics={},
        created=_BEGAN + serial,
        score=None if score is None else Score(monitor="val_loss", mode=fit.options.mode, value=score),
        base_name=None if request is None else request.base_name,
        resumed_from=fit.saver.resumed_from,
        exactness=None,
        weights_only=weights_only,
    ).to_dict()
    weights = torch.full((_VALUES,), float(serial))
    checkpoint: dict[str, Any] = {"state_dict": {"weight": weights}, "loops": {}, "callbacks": {}}
    if not weights_only:
        checkpoint["optimizer_states"] = [{"exp_avg": weights.clone(), "exp_avg_sq": weights.clone()}]
    position = asdict(fit.progress.position)
    ours = {"ranks": [1], "gradients": {}, "sums": None, "metadata": metadata, "position": position}
    return Snapshot({**checkpoint, KEY: ours}, metadata)


def serial_of(path: Path) -> int:
    """Which save a file is."""
    return int(read_info(path).created - _BEGAN)
