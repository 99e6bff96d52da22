"""The flight recorder: writes the result of each batch of a fit to a trace, and compares it after a resume.

The result of a batch is its loss. Where ``training_step`` returns none, it is a sum over a fixed sample of the
trainable parameters, which takes longer. On a GPU the result is copied without waiting for it, and written when it has
arrived.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from checkpointable.catalog.info import Confirmation
from checkpointable.catalog.traces import End, Label, ends_in, of_run
from checkpointable.lightning_internals import model_parallel
from checkpointable.policy.lineage import Lineage
from checkpointable.resume import traces
from checkpointable.resume.confirmation import Comparison, Expectation, say_nothing_to_compare
from checkpointable.resume.traces import Traces
from checkpointable.storage.ring_file import RingFile

_SAMPLED = 8  # parameters, and elements of each


@dataclass(frozen=True)
class _Copied:
    """A result that is on its way from a GPU."""

    number: int
    result: torch.Tensor
    is_loss: bool
    event: torch.cuda.Event

    def has_arrived(self) -> bool:
        """Whether the result can be read."""
        return bool(self.event.query())  # type: ignore[no-untyped-call]


class Recorder:
    """Records one fit on one rank. Before ``start`` it does nothing.

    Args:
        kept: The traces of the run; ``None`` if there is no directory for them.
    """

    def __init__(self, kept: Traces | None = None) -> None:
        self._kept = kept
        self._label: Label | None = None  # of the trace
        self._attempt = ""
        self._ring: RingFile | None = None
        self._comparison: Comparison | None = None
        self._on_the_way: deque[_Copied] = deque()
        self._is_on = False

    def start(self, lineage: Lineage, resumed_after: int | None, expectation: Expectation) -> None:
        """Record an attempt, and compare it with earlier ones if it has resumed after so many batches."""
        if self._kept is None:
            _say_off("there is no local directory for them")
            return
        traces.remove(self._kept.find_abandoned())
        self._attempt = trajectory = lineage.attempt
        if resumed_after is not None and lineage.ancestors:
            trajectory = self._compare(self._kept, lineage, resumed_after, expectation) or trajectory
        self._label = Label(run_id=self._kept.run_id, trajectory=trajectory, ranks=self._kept.ranks)
        try:
            os.makedirs(self._kept.directories[0], exist_ok=True)  # for ranks on other machines
            self._ring = RingFile(self._kept.path(lineage.attempt), self._label.encoded())
        except OSError as error:
            _say_off(str(error))
        self._is_on = self._ring is not None or self._comparison is not None

    def record(self, number: int, outputs: Mapping[str, Any] | None, module: torch.nn.Module) -> None:
        """Record what ``training_step`` gave for the batch of this number in the run, counted from 1.

        Raises:
            ResumeError: If it is not what it was before the kill, and ``strict_resume`` is set.
        """
        if not self._is_on:
            return
        loss = outputs.get("loss") if outputs else None
        if isinstance(loss, torch.Tensor) and (loss.ndim == 0 or loss.numel() == 1):
            if loss.is_cpu:
                self._note(number, loss.item(), True)
            else:
                self._copy(number, loss.detach(), is_loss=True)
        else:
            self._record_sample(number, module)

    def outcome(self) -> Confirmation | None:
        """How the batches that were trained again compare with those before the kill; ``None`` if there was none.

        It waits for what is on its way. ``ResumeError`` as in ``record``.
        """
        self._collect(wait=True)
        return None if self._comparison is None else self._comparison.outcome

    def finish(self) -> None:
        """After a fit that ended normally: say what was compared, and delete the traces of the run."""
        self._collect(wait=True)
        if self._comparison is not None:
            self._comparison.end()
        self.close()
        if self._kept is not None:
            traces.remove(self._kept.find())

    def ends(self) -> dict[str, End]:
        """The exceptions that ended earlier attempts of the run on any rank, as far as their traces tell."""
        return {} if self._kept is None else ends_in(of_run(self._kept.run_id, self._kept.directories))

    def close(self, ended: str | None = None, session: float | None = None) -> None:
        """Record no more. The trace stays, for the resume, with the exception that ended the session begun then."""
        if ended is not None and self._label is not None:
            self._relabel(replace(self._label, ended=ended, ended_at=time.time(), session=session))
        self._is_on = False
        self._on_the_way.clear()
        if self._ring is not None:
            self._ring.close()

    def _compare(self, kept: Traces, lineage: Lineage, after: int, expectation: Expectation) -> str | None:
        """Expect what earlier attempts recorded. Return their trajectory if this attempt is to continue it.

        Traces that no resume from here on can need are deleted, but not the one of the attempt resumed from, which says
        what its trajectory is. A run that has ended normally has no traces, and nothing is said of it.
        """
        earlier = kept.find()
        if not earlier:
            return None
        mine = [trace for trace in earlier if trace.rank == kept.rank and trace.attempt != lineage.attempt]
        parent = next((trace for trace in mine if trace.attempt == lineage.ancestors[-1].attempt), None)
        traces.remove(trace for trace in earlier if trace is not parent and not trace.reaches_beyond(after))
        if parent is None:
            say_nothing_to_compare("no record of the batches after the save is left")
            return None
        if parent.label.ranks != kept.ranks:
            say_nothing_to_compare(f"{parent.label.ranks} ranks before, {kept.ranks} now")
            return None
        same = (trace.records.items() for trace in mine if trace.label == parent.label)
        expected = {number: bits for records in same for number, bits in records if number > after}
        self._comparison = Comparison(expected, after, expectation)
        return parent.label.trajectory if expectation.is_same else None

    def _note(self, number: int, value: float, is_loss: bool) -> None:
        comparison, ring = self._comparison, self._ring
        if comparison is not None and not comparison.is_over:
            comparison.add(number, value, is_loss=is_loss)
            if comparison.first_difference is not None and self._label is not None:
                self._relabel(replace(self._label, trajectory=self._attempt))  # from here on it is one of its own
        if ring is not None:
            try:
                ring.record(number, value)
            except OSError as error:
                ring.close()
                self._ring = None
                _say_off(str(error))

    def _relabel(self, label: Label) -> None:
        self._label = label
        if self._ring is not None:
            try:
                self._ring.relabel(label.encoded())
            except (OSError, ValueError) as error:
                rank_zero_info(f"checkpointable: the trace of the losses cannot be changed: {error}")

    def _record_sample(self, number: int, module: torch.nn.Module) -> None:
        sample = _sample(module)
        if sample is None:
            return  # nothing trains, and nothing is claimed of this batch
        if sample.is_cpu:
            self._note(number, _value(sample), False)
        else:
            self._copy(number, sample, is_loss=False)

    def _copy(self, number: int, result: torch.Tensor, *, is_loss: bool) -> None:
        """Start to copy a result from the device, and note those that have arrived."""
        if not result.is_cuda:
            self.close()
            _say_off(f"results on {result.device.type} cannot be read without waiting for them")
            return
        on_cpu = result.to("cpu", non_blocking=True)  # into pinned memory
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(result.device))
        self._on_the_way.append(_Copied(number, on_cpu, is_loss, event))
        self._collect(wait=False)

    def _collect(self, *, wait: bool) -> None:
        while self._on_the_way and (wait or self._on_the_way[0].has_arrived()):
            copied = self._on_the_way.popleft()
            copied.event.synchronize()
            self._note(copied.number, _value(copied.result), copied.is_loss)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: they record nothing."""
        return vars(Recorder())


def _sample(module: torch.nn.Module) -> torch.Tensor | None:
    """Elements of the trainable parameters, always the same ones as long as the same ones are trained."""
    trained = [weight for weight in module.parameters() if weight.requires_grad and weight.is_floating_point()]
    trained = [weight for weight in trained if weight.numel()]
    if not trained:
        return None
    chosen = trained[:: -(-len(trained) // _SAMPLED)]
    flat = [model_parallel.of_rank(weight.detach()).reshape(-1) for weight in chosen]
    parts = [weight[:: max(-(-weight.numel() // _SAMPLED), 1)] for weight in flat]
    device = parts[0].device
    return torch.cat([part if part.device == device else part.to(device, non_blocking=True) for part in parts])


def _value(result: torch.Tensor) -> float:
    """Of a loss itself, of a sample a weighted sum: in a plain one, the changes of a classifier's rows cancel out."""
    return float(sum(math.sqrt(place) * value for place, value in enumerate(result.reshape(-1).tolist(), start=1)))


def _say_off(why: str) -> None:
    rank_zero_info(f"checkpointable: losses are not recorded, so the next resume cannot be confirmed: {why}")
