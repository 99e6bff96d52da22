"""The snapshot of a checkpoint: the content of its file, which training no longer changes.

What is not a tensor is pickled at once. Tensors are copied once, into memory that is reused by later saves. The copy of
large tensors that only optimizer steps change can be made later, while the next forward and backward run (CheckFreq,
FAST'21; DataStates-LLM, HPDC'24). After that copy, torch's count of changes shows whether such a tensor changed
meanwhile. A change that torch does not count (``.data``) can be missed if it touches few elements. So a part of these
tensors is copied at once and compared to the last bit, in each save another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, BinaryIO

import torch

from checkpointable.policy.names import HISTORY_KEY, KEY
from checkpointable.storage.format import archive, torch_records, verify, zip_layout
from checkpointable.storage.staging.buffer import StagingBuffer
from checkpointable.storage.staging.copies import Copies
from checkpointable.storage.staging.device_copy import lies_on_device
from checkpointable.storage.staging.host_copy import view


class Snapshot:
    """The content of a file.

    Args:
        checkpoint: What is saved.
        metadata: What the file states about itself; ``None`` for a file without metadata.
        buffer: Memory that tensors are copied to. With ``None`` they are not copied, and must not change until the file
            is written.
        changed_only_by_steps: Tensors that do not change before ``wait_for_staging`` is called. The large ones are
            copied by ``fill``.
        watched: Copy the tensors of ``changed_only_by_steps`` at once, like all others, so that ``has_changed`` can
            compare them.
        history: The history of the run as JSON, for a file with metadata.

    Raises:
        MemoryError: If there is not enough memory for the copy. Nothing was changed.
    """

    def __init__(
        self,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        buffer: StagingBuffer | None = None,
        changed_only_by_steps: Iterable[torch.Tensor] = (),
        *,
        watched: bool = False,
        history: str | None = None,
    ) -> None:
        found = torch_records.records(checkpoint)
        found += [("version", torch_records.version()), (zip_layout.ID, bytes(zip_layout.ID_SIZE))]
        if metadata is not None and history is not None:
            found.append((archive.HISTORY_MEMBER, history.encode()))
        if metadata is not None:
            found.append((archive.MEMBER, archive.encode(metadata)))
        sizes = [(name, len(data) if isinstance(data, bytes) else data.nbytes()) for name, data in found]
        self._places = zip_layout.lay_out(sizes, alignment=torch_records.alignment())
        self._sealed = metadata is not None
        self._written: list[verify.Written] = []
        self._copies: Copies | None = None
        self._data: list[bytes | memoryview]
        if buffer is None:
            self._kept = [data if isinstance(data, bytes) else _on_host(data) for _, data in found]
            self._data = [
                data if isinstance(data, bytes) else view(data.data_ptr(), data.nbytes()) for data in self._kept
            ]
        else:
            self._copies = Copies(found, self._places, buffer, changed_only_by_steps, watched=watched)
            self._data = self._copies.data

    @classmethod
    def of(
        cls,
        checkpoint: Mapping[str, Any],
        buffer: StagingBuffer | None = None,
        changed_only_by_steps: Iterable[torch.Tensor] = (),
        *,
        watched: bool = False,
    ) -> Snapshot:
        """Of a checkpoint that has metadata and history under our key. The history moves to a member of its own."""
        ours = checkpoint.get(KEY, {})
        if HISTORY_KEY in ours:
            checkpoint = {**checkpoint, KEY: {name: it for name, it in ours.items() if name != HISTORY_KEY}}
        history, metadata = ours.get(HISTORY_KEY), ours.get("metadata")
        return cls(checkpoint, metadata, buffer, changed_only_by_steps, watched=watched, history=history)

    @cached_property
    def size(self) -> int:
        """Bytes of the file."""
        return zip_layout.size(self._places, sealed=self._sealed)

    @property
    def is_copy(self) -> bool:
        """Whether it holds copies of the tensors, so that training may continue before the file is there."""
        return self._copies is not None

    @property
    def is_filled(self) -> bool:
        """Whether all tensors are copied."""
        return self._copies is None or self._copies.is_filled

    def fill(self) -> bool:
        """Make the copies that were left for later, and tell whether those tensors were unchanged until then."""
        return self._copies is None or self._copies.fill()

    def has_changed(self) -> bool | None:
        """Whether a watched tensor has changed since it was copied, compared bit by bit; ``None`` if none is watched.

        To be called once, before the buffer is used by another snapshot.
        """
        return None if self._copies is None else self._copies.has_changed()

    def wait_for_staging(self) -> None:
        """Before a tensor may change: wait until it is copied, or let its device wait."""
        if self._copies is not None:
            self._copies.hold_back()

    def pieces(self) -> Iterator[memoryview]:
        """The bytes of the file in order."""
        # a generator of this object keeps the tensors alive; the views of their memory alone do not
        self._written = []
        for span in zip_layout.spans(self._places, self._data, sealed=self._sealed):
            self._written.append(verify.Written(len(span.data), span.crc_before, span.crc))
            yield span.data

    def problem_in(self, file: BinaryIO) -> str | None:
        """What is wrong with a file that all pieces were written into, or ``None``. Reads all of it."""
        return verify.difference(file, self._written)


def _on_host(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """The storage itself, or a copy of one that lies on a device."""
    return storage.cpu() if lies_on_device(storage) else storage  # type: ignore[no-untyped-call]
