"""Save and restore the running means of logged values, the values that are shown, and torchmetrics' states.

Lightning saves none of them: after a resume inside an epoch, the epoch's means would start empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

from checkpointable.lightning_internals.names import METADATA_FIELDS
from checkpointable.lightning_internals.tree import find

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric

_NONE: Mapping[str, int] = {}
_SHOWN = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")


def capture(trainer: Trainer) -> dict[str, Any]:
    """Return the training epoch's running means so far, and the values that loggers and callbacks are shown."""
    connector = trainer._logger_connector
    results = trainer.fit_loop.epoch_loop._results
    means = {key: _pack(result) for key, result in results.items() if not result.has_reset}
    shown = {name: plain(dict(getattr(connector, name))) for name in _SHOWN}
    return {"means": means, "shown": shown, "first_loop_iter": connector._first_loop_iter}


def plain(value: Any, *, most_elements: float = math.inf, depth: int = 4) -> Any:
    """A value with plain tensors for those of subclasses, which ``weights_only=True`` refuses.

    Args:
        value: Also containers of tensors.
        most_elements: Larger tensors stay as they are.
        depth: How many containers, one in another, are searched.
    """
    if isinstance(value, torch.Tensor):
        stays = type(value) in (torch.Tensor, torch.nn.Parameter) or value.numel() > most_elements
        return value if stays else value.as_subclass(torch.Tensor)
    inner = partial(plain, most_elements=most_elements, depth=depth - 1)
    if type(value) is dict and depth:
        return {key: inner(item) for key, item in value.items()}
    return type(value)(map(inner, value)) if type(value) in (list, tuple) and depth else value


def restore(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Restore what ``capture`` returned."""
    connector = trainer._logger_connector
    results = trainer.fit_loop.epoch_loop._results
    for key, packed in saved["means"].items():
        results[key] = _unpack(trainer, packed)
    connector._first_loop_iter = saved["first_loop_iter"]
    restore_shown(trainer, saved)


def restore_shown(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Restore only the values that are shown: at the start of an epoch there are no running means."""
    for name in _SHOWN:
        getattr(trainer._logger_connector, name).update(saved["shown"][name])


def capture_metrics(module: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """Return the states of the ``torchmetrics`` metrics in a module, by name. Lightning's checkpoint has none."""
    return {name: _metric_state(metric) for name, metric in metrics_of(module)}


def restore_metrics(module: torch.nn.Module, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Restore the states of metrics, on the devices where the metrics are."""
    for name, metric in metrics_of(module):
        if name in saved:
            _set_metric_state(metric, saved[name])


def metrics_of(module: torch.nn.Module) -> list[tuple[str, Metric]]:
    """The metrics of a module, by name."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, Metric)]


def names_of_epoch(trainer: Trainer) -> set[str]:
    """The names of what the loop that is just ending has logged over all of its batches."""
    results: Any = trainer._results
    valid = [] if results is None else [it for it in results.result_metrics if it.meta.on_epoch and not it.has_reset]
    return {name for result in valid for name in results._forked_name(result, on_step=False)}


def updates(trainer: Trainer) -> Mapping[str, int]:
    """How often the training has logged each of its values."""
    results = trainer.fit_loop.epoch_loop._results
    return {key: result._update_count for key, result in results.items()} if results else _NONE


def names_updated(trainer: Trainer, before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    """The names of the training's values by batch that were logged in between, by two results of ``updates``."""
    results = trainer.fit_loop.epoch_loop._results
    new = [results[key] for key, count in after.items() if count != before.get(key, 0)]
    return {name for result in new if result.meta.on_step for name in results._forked_name(result, on_step=True)}


def higher_is_better(trainer: Trainer, name: str) -> bool | None:
    """What the ``torchmetrics`` metric says that the loop logs under a name; ``None`` if it is no metric, or unsaid."""
    results = trainer._results
    if results is None:
        return None
    for result in results.result_metrics:
        forked = {*results._forked_name(result, on_step=False), *results._forked_name(result, on_step=True)}
        if not result.is_tensor and name in forked:
            return getattr(result.value, "higher_is_better", None)
    return None


def _metric_state(metric: Metric) -> dict[str, Any]:
    states = {name: getattr(metric, name) for name in metric._defaults}
    copied = {name: list(value) if isinstance(value, list) else value for name, value in states.items()}
    own = vars(metric).items() if isinstance(metric, WrapperMetric) else ()  # these keep their state in attributes
    attributes = {
        name: value for name, value in own if isinstance(value, (torch.Tensor, int, float)) and name not in states
    }
    return {"states": plain(copied), "plain": plain(attributes), "updates": metric._update_count}


def _set_metric_state(metric: Metric, saved: Mapping[str, Any]) -> None:
    for name, value in saved["states"].items():
        moved = [item.to(metric.device) for item in value] if isinstance(value, list) else value.to(metric.device)
        setattr(metric, name, moved)
    for name, value in saved["plain"].items():
        setattr(metric, name, value.to(metric.device) if isinstance(value, torch.Tensor) else value)
    metric._update_count = saved["updates"]
    metric._computed = None


def _pack(result: _ResultMetric) -> dict[str, Any]:
    meta, sync = result.meta, result.meta.sync
    return {
        "meta": {name: getattr(meta, name) for name in METADATA_FIELDS},
        "reduce_fx": meta.reduce_fx.__name__,
        "sync": {"should": sync.should, "rank_zero_only": sync.rank_zero_only},
        "is_tensor": result.is_tensor,
        "cache": plain(result._forward_cache),
        "state": _metric_state(result),
    }


def _unpack(trainer: Trainer, packed: Mapping[str, Any]) -> _ResultMetric:
    meta = find(trainer, "_Metadata")(**packed["meta"], reduce_fx=getattr(torch, packed["reduce_fx"]))
    meta.sync = find(trainer, "_Sync")(
        _should=packed["sync"]["should"],
        fn=trainer.strategy.reduce,
        rank_zero_only=packed["sync"]["rank_zero_only"],
    )
    result: _ResultMetric = find(trainer, "_ResultMetric")(meta, packed["is_tensor"])
    _set_metric_state(result, packed["state"])
    if not packed["is_tensor"]:
        result.value = dict(trainer.lightning_module.named_modules())[packed["meta"]["metric_attribute"]]
    result._forward_cache = packed["cache"]
    return result.to(trainer.strategy.root_device)


def next_step(trainer: Trainer) -> int:
    """The step at which Lightning logs the values of the next batch."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)
