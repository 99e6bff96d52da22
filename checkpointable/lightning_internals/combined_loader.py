"""A ``CombinedLoader`` that iterates over stand-ins of its loaders. Users and Lightning see the loaders, unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import torch

from checkpointable.lightning_internals.tree import Mixin, find, is_a, put_before

if TYPE_CHECKING:
    from lightning.pytorch.utilities import CombinedLoader
else:  # at run time, the base is the class of the loader; its own base must come first for an instance to change class
    CombinedLoader = Iterable


class StandIns(Protocol):
    """Has one stand-in for each loader, and hears of the passes through them."""

    @property
    def loaders(self) -> Sequence[Any]:
        """What is iterated in place of each loader."""

    def on_pass_start(self) -> None:
        """Before the iterators of a pass are made."""

    def on_pass_started(self, *, fetches_ahead: bool) -> None:
        """After they are made. Without a length, Lightning fetches each batch before the previous one is trained."""

    def ended_once(self) -> list[bool]:
        """Which loaders have ended in this pass already, and started over."""

    @property
    def fetches_ahead(self) -> bool:
        """Whether Lightning does so in this pass."""

    def on_fetch(self) -> None:
        """Before a batch is fetched ahead from every loader."""


class _ObservedCombinedLoader(CombinedLoader, Mixin):
    """Iterates over ``stand_ins``; a copy has none, since iterators can't be copied, and iterates over the loaders."""

    stand_ins: StandIns | None = None

    def __iter__(self) -> Any:
        stand_ins = self.stand_ins
        if stand_ins is None:
            return super().__iter__()
        stand_ins.on_pass_start()
        loaders = self._flattened
        self._flattened = list(stand_ins.loaders)
        try:
            super().__iter__()
        finally:
            self._flattened = loaders
        set_consumed(self, stand_ins.ended_once())
        stand_ins.on_pass_started(fetches_ahead=find(self, "sized_len")(self) is None)
        return self

    def __next__(self) -> Any:
        if self.stand_ins is not None and self.stand_ins.fetches_ahead:
            self.stand_ins.on_fetch()
        return super().__next__()

    def _state_dicts(self) -> list[dict[str, Any]]:
        """Without loaders whose ``state_dict`` is there, and not implemented.

        Torchdata's makes an iterator to say its state, which draws. That is no draw of the run.
        """
        found, flattened = [], self._flattened
        try:
            for loader in flattened:
                self._flattened = [loader]
                with suppress(NotImplementedError), torch.random.fork_rng(devices=()):
                    found += super()._state_dicts()
        finally:
            self._flattened = flattened
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "stand_ins": None, "_iterator": None}


def observe(loader: CombinedLoader, stand_ins: StandIns) -> None:
    """Let a loader iterate over these stand-ins from its next pass on."""
    put_before(_ObservedCombinedLoader, loader)
    loader.stand_ins = stand_ins  # type: ignore[attr-defined]  # it is an observed one now


def stand_ins(loader: CombinedLoader | None) -> StandIns | None:
    """What an observed loader iterates over in place of its loaders; ``None`` for another loader."""
    return getattr(loader, "stand_ins", None)


def set_consumed(loader: CombinedLoader, consumed: list[bool]) -> None:
    """Set which loaders have ended once, where all start over until each has (``mode="max_size_cycle"``)."""
    iterator: Any = loader._iterator
    if is_a(iterator, "_MaxSizeCycle"):
        iterator._consumed = consumed
