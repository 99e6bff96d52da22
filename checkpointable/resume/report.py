"""The report before the first resumed batch: how exactly each part resumes, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from checkpointable._errors import CheckpointableWarning, ResumeError
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.tree import is_overridden
from checkpointable.policy.position import Ended, Position
from checkpointable.policy.verdict import Level, Verdict, exactness, not_exact
from checkpointable.resume import evidence, gradient_sums, loader_verdict, rank_states
from checkpointable.resume.loaders import positions_of
from checkpointable.resume.parameter_names import names_of
from checkpointable.resume.script_values import Difference
from checkpointable.resume.settings import settings_of
from checkpointable.resume.state import RankState, RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def when_saved(trainer: Trainer, state: RunState, saved: RankState | None) -> list[Verdict]:
    """How exactly each part resumes from the file that is being saved, on a machine where all else is the same."""
    if saved is None:
        lost = "optimizers, schedulers, randomness, position in the data"
        return [Verdict(lost, Level.LOST, "the file holds weights only")]
    found = [*_not_at_safe_point(trainer, state), *evidence.in_file(trainer, state, saved)]
    found += gradient_sums.when_saved(state.sums)
    return [*found, *loader_verdict.when_saved(trainer, state.ended)]


def when_resumed(trainer: Trainer, state: RunState, saved: RankState | None, ended: Ended | None) -> Iterator[Verdict]:
    """How exactly each part resumes in this training, of those that are not compared with the file one by one.

    Raises:
        ResumeError: If the optimizers are of other classes.
    """
    settings = settings_of(trainer, names_of(trainer))
    _check_optimizers(trainer, state.settings.get("optimizers"), settings["optimizers"])
    if saved is None:
        yield Verdict("randomness and position in the data", Level.LOST, "the file has them of no rank")
        return
    inside = ended == Ended.BATCH
    yield from _not_at_safe_point(trainer, state)
    is_dealt = any(it.rest is not None for it in positions_of(internals.training_loader(trainer)))
    yield from rank_states.verdicts(state, trainer.global_rank, trainer.world_size, ended, is_dealt=is_dealt)
    changed = [name for name, was in state.settings.items() if settings.get(name, was) != was]
    for name in changed:
        was, now = state.settings[name] or "none", settings[name] or "none"
        yield Verdict(name, Level.APPROXIMATE, f"{was} when saved, {now} now")
    if not changed:
        yield Verdict("settings", Level.EXACT, "the trainer's arguments are those in the file")
    yield from evidence.after_restoring(trainer, state, saved, ended)
    yield from loader_verdict.when_resumed(trainer, saved.training, saved.validation, inside=inside)


def check_position(trainer: Trainer, state: RunState) -> None:
    """Check that the counters of Lightning and those of this library agree.

    Raises:
        ResumeError: If they do not.
    """
    ours = (state.position.epoch + (state.ended == Ended.EPOCH), state.position.batch)
    counted = internals.counted(trainer)
    if state.ended is not None and ours != (counted.epoch, counted.batch):
        raise ResumeError(
            f"cannot resume from {trainer.ckpt_path}: it was saved after {state.position}, but Lightning's"
            f" counters in it say {counted}. Its parts do not belong together; resume from another checkpoint."
        )


def announce(trainer: Trainer, position: Position, verdicts: Sequence[Verdict], *, strict: bool) -> None:
    """Log where the run resumes, and how exactly.

    Raises:
        ResumeError: If ``strict`` and something is not exact.
    """
    _refuse(trainer, verdicts, strict=strict)
    rank_zero_info(
        f"checkpointable: resumes after epoch {position.epoch}, batch {position.batch} of"
        f" {trainer.num_training_batches}, step {position.step}, from {trainer.ckpt_path}: {exactness(verdicts)}"
    )


def say_late(trainer: Trainer, verdicts: Sequence[Verdict], *, strict: bool) -> None:
    """Warn of verdicts that are known only after the run has been announced, if they are not exact.

    Raises:
        ResumeError: If they are not, and ``strict``.
    """
    _refuse(trainer, verdicts, strict=strict)
    if not_exact(verdicts):
        rank_zero_warn(
            f"the resume from {trainer.ckpt_path} is not exact: {exactness(verdicts)}", category=CheckpointableWarning
        )


def _refuse(trainer: Trainer, verdicts: Sequence[Verdict], *, strict: bool) -> None:
    refused = not_exact(verdicts)
    if refused and strict:
        details = "\n  ".join(map(str, refused))
        raise ResumeError(
            f"cannot resume {type(trainer.lightning_module).__name__} from {trainer.ckpt_path} exactly"
            f" (strict_resume=True).\n  {details}\nResume with strict_resume=False to go on at the same batch"
            " number, or restore what it was saved with."
        )


def announce_finished(trainer: Trainer, position: Position, differing: Sequence[Difference]) -> None:
    """Say that nothing is left to train; warn if the script gives other values than the run was trained with."""
    ended = f"this run ended after {position}: nothing is left to train"
    if not differing:
        rank_zero_info(f"checkpointable: {ended}.")
        return
    rank_zero_warn(
        f"{ended}. This script gives other values, which were not used: {'; '.join(map(str, differing))}. To train with"
        f" them, start a new run: with another dirpath, or without ckpt_path={str(trainer.ckpt_path)!r}.",
        category=CheckpointableWarning,
    )


def of_all_ranks(trainer: Trainer, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of all ranks, each once. Collective."""
    if trainer.world_size == 1:
        return list(verdicts)
    of_all: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(of_all, list(verdicts))
    return list(dict.fromkeys(verdict for of_one in of_all for verdict in of_one))


def _not_at_safe_point(trainer: Trainer, state: RunState) -> Iterator[Verdict]:
    module, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]  # set where it is given
    adds = is_overridden(module, "on_save_checkpoint") or is_overridden(data, "on_save_checkpoint", "state_dict")
    if state.before_validation and adds:
        yield Verdict(
            "what your code adds to a checkpoint",
            Level.APPROXIMATE,
            "saved in the middle of a validation, which may have changed it",
        )
    if state.ended is None:
        yield Verdict(
            "everything",
            Level.APPROXIMATE,
            "saved inside a batch, or an epoch's start or end, by your code or another callback",
        )
    elif state.fetching:
        yield Verdict(
            "randomness", Level.APPROXIMATE, "an exception was raised while the next batch was fetched or prepared"
        )


def _check_optimizers(trainer: Trainer, was: str | None, now: str) -> None:
    """Refuse optimizers of other classes: the saved state would make their first step fail with an obscure error."""
    if was and was != now:
        raise ResumeError(
            f"cannot resume from {trainer.ckpt_path}: it holds the state of {was}, and configure_optimizers gives"
            f" {now or 'none'}. Use the same optimizers again, or start a new run from the weights:"
            f" {type(trainer.lightning_module).__name__}.load_from_checkpoint(...)."
        )
