"""What shows that the state is restored: each part is asked for again, and compared with the file.

Lightning has restored these parts when the fit loop begins, and no hook of training has been called yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals import callbacks as trainer_callbacks
from checkpointable.lightning_internals import finders, logged, model_parallel
from checkpointable.lightning_internals import trainer as internals
from checkpointable.lightning_internals.tree import find, is_a
from checkpointable.policy.names import KEY
from checkpointable.policy.position import Ended
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume import module_rng, module_state, rng, shards
from checkpointable.resume.shards import in_shards
from checkpointable.resume.state import RankState, RunState
from checkpointable.storage.format.same import same

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_SAME = "read back as in the file"
_CHANGE_NOTHING = ("ModelCheckpoint", "Timer")  # which files are kept, and how long the training lasts


def in_file(trainer: Trainer, state: RunState, saved: RankState) -> Iterator[Verdict]:
    """What a file that is being saved holds."""
    held = ["weights", "loops", "randomness"]
    held += ["optimizers"] if trainer.optimizers else []
    held += ["lr_schedulers"] if trainer.lr_scheduler_configs else []
    held += ["gradients"] if state.gradients else []
    held += ["metrics"] if saved.metrics else []
    if state.left_out:
        yield Verdict("frozen part", Level.EXACT, "its checksums are in the file")
    apart = model_parallel.trained_apart(trainer)
    for part in held:
        if apart and part in ("weights", "optimizers"):
            why = f"each rank trains its own {_names(apart)}, and the file has one of them: part them by fully_shard"
            yield Verdict(part, Level.APPROXIMATE, why)
        else:
            yield Verdict(part, Level.EXACT, "in the file")
    stateless = find(trainer, "Callback").state_dict
    for callback in trainer_callbacks.callbacks(trainer):
        if _in_part(callback, state.ended):
            yield _approximate(callback, _in_part(callback, state.ended))
        elif type(callback).state_dict is not stateless and not is_a(callback, *_CHANGE_NOTHING):
            yield Verdict(type(callback).__name__, Level.EXACT, "its state is in the file")


def after_loading(trainer: Trainer, loaded: Mapping[str, Any], ended: Ended | None) -> Iterator[Verdict]:
    """What Lightning has restored from this checkpoint."""
    states = [internals.optimizer_state(trainer, optimizer) for optimizer in trainer.optimizers]
    parted = model_parallel.parts_model(trainer)
    if not model_parallel.saves_in_shards(trainer):
        yield from _in_order(
            "optimizers", trainer.optimizers, states, loaded.get("optimizer_states", ()), parted=parted
        )
    if in_shards(loaded):
        yield shards.read_back(trainer)
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    states = [scheduler.state_dict() for scheduler in schedulers]
    yield from _in_order("lr_schedulers", schedulers, states, loaded.get("lr_schedulers", ()))
    yield from _precision(trainer, loaded)
    yield from _data_module(trainer, loaded)
    if loaded.get("callbacks", {}) is not None:  # the script's are used
        yield from _callbacks(trainer, loaded.get("callbacks", {}), ended)
    if not in_shards(loaded):
        yield _weights(trainer, loaded)


def after_restoring(trainer: Trainer, state: RunState, saved: RankState, ended: Ended | None) -> Iterator[Verdict]:
    """What this library has restored before the first hook of training. The generators are restored later."""
    module = trainer.lightning_module
    present = logged.capture_metrics(module)
    for name in saved.metrics:
        if name not in present:
            yield Verdict(f"metric {name!r}", Level.LOST, "the module has no metric of that name")
    if ended is not None and saved.metrics.keys() <= present.keys():
        yield _compared("metrics", saved.metrics, present)
    if ended == Ended.BATCH:
        yield _compared("logged values", saved.logged, logged.capture(trainer))
    if state.gradients:
        yield _compared("gradients", state.gradients, module_state.capture_gradients(module))
    if saved.buffers and trainer.world_size > 1:
        buffers = {name: buffer.detach().cpu() for name, buffer in module.named_buffers() if name in saved.buffers}
        yield _compared("buffers of the ranks", saved.buffers, buffers)
    with rng.isolated(saved.random):
        yield _compared("randomness", saved.random, rng.capture())
    yield from module_rng.verdicts(module, saved.generators)
    yield Verdict("loops", Level.EXACT, "the counters of Lightning and those of checkpointable agree")


def _weights(trainer: Trainer, loaded: Mapping[str, Any]) -> Verdict:
    left_out = loaded.get(KEY, {}).get("left_out", {})
    saved = {name: value for name, value in loaded["state_dict"].items() if name not in left_out}
    now = internals.module_state(trainer)
    wrong = _differing(saved, now)
    if wrong:  # a callback such as WeightAveraging saves other weights than those of the module
        asked = {**loaded, "state_dict": now}
        trainer_callbacks.ask_to_save(trainer, asked)
        now, given = asked["state_dict"], [key for key in asked if asked[key] is not loaded.get(key)]
        wrong = [] if all(same(loaded.get(key), asked[key]) for key in given) else wrong
    missing = [name for name in now if name not in saved and name not in left_out]
    gone = [name for name in wrong if name not in now]
    said = [
        ([name for name in wrong if name in now], "not as in the file after loading"),
        (missing, "not in the file with this shape, as the script made them"),
        (gone, "only in the file"),
    ]
    reasons = [f"{_names(names)}: {why}" for names, why in said if names]
    return (
        Verdict("weights", Level.APPROXIMATE, ", ".join(reasons)) if reasons else Verdict("weights", Level.EXACT, _SAME)
    )


def _in_order(
    part: str, things: Sequence[Any], now: Sequence[Any], saved: Sequence[Any], *, parted: bool = False
) -> Iterator[Verdict]:
    """Optimizers or schedulers, which Lightning restores by their order. Other classes are told as a setting.

    One whose state is ``parted`` over the ranks gives it on rank 0 only, which judges it for all.
    """
    for number, (thing, state, before) in enumerate(zip(things, now, saved, strict=False)):
        if before and not state and (hasattr(thing, "consolidate_state_dict") or parted):
            continue
        name = part if len(things) == 1 else f"{part}[{number}]"
        yield _compared(name, before, state, of=type(thing).__name__)


def _precision(trainer: Trainer, loaded: Mapping[str, Any]) -> Iterator[Verdict]:
    plugin = trainer.precision_plugin
    name, state = type(plugin).__qualname__, plugin.state_dict()
    if name in loaded:
        yield _compared("gradient scaler", loaded[name], state)
    elif state:
        yield Verdict("gradient scaler", Level.LOST, "the file has no state of it")


def _data_module(trainer: Trainer, loaded: Mapping[str, Any]) -> Iterator[Verdict]:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set where mypy does not look
    name = type(data).__qualname__
    if data is not None and name in loaded:
        yield _compared(name, loaded[name], data.state_dict())


def _callbacks(trainer: Trainer, saved: Mapping[str, Any], ended: Ended | None) -> Iterator[Verdict]:
    present = {it.state_key: it for it in trainer_callbacks.callbacks(trainer)}
    for key, callback in present.items():
        if is_a(callback, *_CHANGE_NOTHING):
            continue
        name, state = type(callback).__name__, callback.state_dict()
        if _in_part(callback, ended):
            yield _approximate(callback, _in_part(callback, ended))
        elif key in saved:
            yield _compared(name, saved[key], state)
        elif state:
            yield Verdict(name, Level.APPROXIMATE, "the file has no state of it")
    for key in saved:
        if key not in present and not key.startswith(_CHANGE_NOTHING):
            yield Verdict(key.partition("{")[0], Level.LOST, "the file has its state, and the trainer no such callback")


def _in_part(callback: Any, ended: Ended | None) -> str:
    """Why a callback is restored only in part after what has ended here; ``""`` if nothing is known against it."""
    if is_a(callback, "StochasticWeightAveraging", "ModelPruning"):
        return "Lightning restores it only in part"
    if finders.tries_before(callback, ended):
        return "it may train on trial before the next batch, and that is not repeated exactly"
    return ""


def _approximate(callback: Any, why: str) -> Verdict:
    return Verdict(type(callback).__name__, Level.APPROXIMATE, why)


def _compared(part: str, saved: Any, now: Any, of: str = "") -> Verdict:
    if same(saved, now):
        return Verdict(part, Level.EXACT, f"{of} {_SAME}".strip())
    wrong = _differing(saved, now) if isinstance(saved, Mapping) and isinstance(now, Mapping) else []
    what = " ".join(filter(None, (of, _names(wrong))))
    return Verdict(
        part, Level.APPROXIMATE, f"{what}: not as in the file after loading" if what else "not as in the file"
    )


def _differing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the saved values that are missing now, or are not the same."""
    return [name for name, value in saved.items() if name not in now or not same(value, now[name])]


def _names(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
