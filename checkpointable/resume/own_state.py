"""The state that a loader, or the data set in it, keeps itself: saved, put back, and asked for again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from checkpointable.storage.format.same import same

_END = object()


class OwnState:
    """The own state of one loader, if it keeps one.

    Attributes:
        is_torchdata: Whether it is torchdata's ``StatefulDataLoader``, which asks its data set for its state.
        of_loader: Whether the loader's state is used. Torchdata's over a data set with an index returns by its indices.
        of_data: Whether the data set keeps a state that may outlast a pass.
        in_process: Whether that data set is read in this process, so that it can be asked.
        returned: Whether the loader or data set gave a state back that was put into it; ``None`` before.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        is_torch = isinstance(loader, DataLoader)
        self.is_torchdata = any(base.__module__.startswith("torchdata.") for base in type(loader).__mro__)
        has_index = is_torch and not isinstance(loader.dataset, IterableDataset)
        self.of_loader = self._is_implemented() and not (self.is_torchdata and has_index)
        self.of_data = is_torch and self.is_torchdata and _has_methods(loader.dataset)
        self.in_process = is_torch and loader.num_workers == 0
        self.returned: bool | None = None
        self._undo: Any = None

    def _is_implemented(self) -> bool:
        """Whether there is a state. Some classes have the methods, and raise or return nothing."""
        if not _has_methods(self._loader):
            return False
        if self.is_torchdata:  # asking it would start its workers
            return True
        try:
            return self._loader.state_dict() is not None
        except NotImplementedError:
            return False

    def capture(self) -> Any:
        """The present state; ``None`` if none is kept, or no pass has begun."""
        if self.is_torchdata and self._loader._iterator is None:  # it would make one now, which draws
            return None
        if self.of_loader:
            return self._loader.state_dict()
        if self.of_data and self.in_process:
            return copy.deepcopy(self._loader.dataset.state_dict())
        return None

    def load(self, state: Any, iterate: Callable[[], Iterator[Any]], *, ended: bool) -> Iterator[Any]:
        """Put a loader's state back; return an iterator from there, an empty one if the pass had ended."""
        loader, before = self._loader, self._data_state()
        loader.load_state_dict(copy.deepcopy(state))
        if not self.is_torchdata:
            self.returned = same(loader.state_dict(), state)
            return self._go_to_end(state) if ended else iterate()
        iterator = iter(()) if ended else iterate()
        self.returned = same(loader.state_dict(), state)  # at the end of a pass, this makes its ended iterator now
        if before is not None and not self.returned and same(self._data_state(), before):
            self._undo = before
        return iterator

    def load_data(self, state: Any) -> None:
        """Put the state of a data set with an index back."""
        if state is not None and self.of_data and self.in_process:
            self._loader.dataset.load_state_dict(copy.deepcopy(state))
            self.returned = same(self._loader.dataset.state_dict(), state)

    def start_pass(self) -> None:
        """Before a new pass: a data set that takes a state for the start of every pass starts at its start again."""
        if self._undo is not None:
            self._loader.dataset.load_state_dict(self._undo)
            self._undo = None

    def _go_to_end(self, state: Any) -> Iterator[Any]:
        """Let the loader end the pass that had ended, so that the next one starts as after it.

        A loader whose state at the end of a pass is that of a new one gives a batch: then the state is put back again.
        """
        if next(iter(self._loader), _END) is not _END:
            self._loader.load_state_dict(copy.deepcopy(state))
        return iter(())

    def _data_state(self) -> Any:
        if self.of_data and self.in_process and self.of_loader:
            return copy.deepcopy(self._loader.dataset.state_dict())
        return None


def _has_methods(thing: Any) -> bool:
    return all(callable(getattr(thing, name, None)) for name in ("state_dict", "load_state_dict"))
