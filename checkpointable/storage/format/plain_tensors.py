"""The pickled form of plain tensors on the CPU or a CUDA device: what ``torch.save`` says, without its pickler.

Torch's pickler takes most of the time of a save of many small tensors. Here a pickler writes a mark in the place of a
tensor. Afterwards each mark is replaced by what torch's pickler writes: a call of ``torch._utils._rebuild_tensor_v2``,
with the name of the storage as a persistent id (``torch/_tensor.py``, ``Tensor._reduce_ex_internal``;
``torch/serialization.py``, ``persistent_id`` in ``_save``; the opcodes: ``pickletools``).
"""

from __future__ import annotations

import functools
import os
import pickle
import re
import struct
from collections.abc import Sequence
from typing import Any

import torch

PROTOCOL = 2  # torch.save's
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"  # GLOBAL
_NO_HOOKS = b"ccollections\nOrderedDict\n"
_MEMO = 64  # the places of the pickler's memo that are ours; with fewer than 256, one byte says which
_STAND_IN_AT = 0  # the place of the function that the pickler writes for a tensor


class NotPlainError(Exception):
    """There is a tensor of another kind, which torch's own pickler has to write."""


class PlainTensors:
    """The plain tensors of one checkpoint, and their storages.

    Attributes:
        storages: By the names that torch gives them.
    """

    def __init__(self) -> None:
        self.storages: dict[str, torch.UntypedStorage] = {}
        self._keys: dict[int, int] = {}  # by the address of torch's object of the storage
        self._names: dict[tuple[int, torch.dtype], bytes] = {}  # the same as it is pickled
        self._dtypes: dict[int, torch.dtype] = {}
        self._kinds = storage_kinds()
        self._forms: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}
        self._places: dict[bytes, int] = {}  # in the memo
        self._pickled: list[bytes] = []

    @property
    def memo(self) -> dict[int, tuple[int, object]]:
        """What the memo of the pickler is to begin with."""
        reserved = [_stand_in, *(object() for _ in range(_MEMO - 1))]
        return {id(it): (place, it) for place, it in enumerate(reserved)}

    def note(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        """The function of the pickler's ``dispatch_table`` for tensors. Returns what makes the pickler write a mark.

        Raises:
            NotPlainError: If the tensor is of another kind.
        """
        dtype = tensor.dtype
        if dtype not in self._kinds or tensor.layout is not torch.strided or tensor.is_nested:
            raise NotPlainError
        is_on_cpu = tensor.is_cpu
        if not is_on_cpu and not tensor.is_cuda:
            raise NotPlainError
        if tensor.is_conj() or tensor.is_neg() or tensor.__dict__ or tensor._backward_hooks:
            raise NotPlainError
        storage = tensor.untyped_storage()
        where = "cpu" if is_on_cpu else f"cuda:{tensor.get_device()}"
        name = self._names.get((storage._cdata, dtype))
        if name is None:
            name = self._name(storage, dtype, where)
        key: tuple[Any, ...] = (where, dtype, storage.nbytes(), tensor.storage_offset(), tensor.size())
        key += (tensor.stride(), tensor.requires_grad)
        form = self._forms.get(key)
        if form is None:
            form = self._form(*key)
            self._forms[key] = self._form(*key)  # from now on in the memo
        before, after = form
        self._pickled.append(before + name + after)
        return _MARK

    def put_into(self, pickled: bytes) -> bytes:
        """Replace the marks.

        Raises:
            NotPlainError: If an object of the user was pickled like a mark.
        """
        tensors = iter(self._pickled)
        whole, marks = _marks().subn(lambda mark: next(tensors, b"") + mark[1], pickled)
        if marks != len(self._pickled):
            raise NotPlainError
        return whole

    def _name(self, storage: torch.UntypedStorage, dtype: torch.dtype, where: str) -> bytes:
        """Name a storage that was not seen before with this type."""
        if where != "cpu" and torch.serialization.location_tag(storage) != where:  # by a package of the user
            raise NotPlainError
        address = storage.data_ptr()
        if address and self._dtypes.setdefault(address, dtype) is not dtype:  # torch refuses it
            raise NotPlainError
        key, pickled = _key(self._keys.setdefault(storage._cdata, len(self._keys)))
        self.storages[key] = storage
        self._names[storage._cdata, dtype] = pickled
        return pickled

    def _form(
        self,
        where: str,
        dtype: torch.dtype,
        storage_bytes: int,
        offset: int,
        size: Sequence[int],
        stride: Sequence[int],
        requires_grad: bool,
    ) -> tuple[bytes, bytes]:
        """What is pickled before and after the name of the storage."""
        kind = self._in_memo(f"ctorch\n{self._kinds[dtype].__name__}\n".encode())
        before = self._in_memo(_REBUILD) + b"((" + self._in_memo(_pickled_text("storage")) + kind
        of_storage = self._in_memo(_pickled_text(where)) + _pickled_number(storage_bytes // dtype.itemsize) + b"tQ"
        place = _pickled_number(offset) + _pickled_numbers(size) + _pickled_numbers(stride)
        hooks = self._in_memo(_NO_HOOKS) + b")R"
        return before, of_storage + place + (b"\x88" if requires_grad else b"\x89") + hooks + b"tR"

    def _in_memo(self, pickled: bytes) -> bytes:
        """The same with a command to keep it; where it was kept before, the command to take it."""
        if pickled in self._places:
            return b"h%c" % self._places[pickled]
        place = self._places[pickled] = _STAND_IN_AT + 1 + len(self._places)
        return pickled + b"q%c" % place


@functools.cache
def storage_kinds() -> dict[torch.dtype, Any]:
    """The class that torch pickles for the storages of each plain type. Others are rebuilt by other functions."""
    names = torch.storage._dtype_to_storage_type_map()
    others = torch.storage._new_dtypes()
    plain = {dtype: name for dtype, name in names.items() if dtype not in others and not _is_quantized(dtype)}
    return {dtype: getattr(torch, name) for dtype, name in plain.items()}


def _is_quantized(dtype: torch.dtype) -> bool:
    return str(dtype).startswith(("torch.q", "torch.uint4", "torch.uint2"))


def _stand_in() -> None:
    """Pickled by its place in the memo alone."""


_NONCE = int.from_bytes(os.urandom(15) + b"\1", "little")  # no file has this number
_MARK = (_stand_in, (), _NONCE)


@functools.cache
def _marks() -> re.Pattern[bytes]:
    """A mark as the pickler writes it: a call, the place of its result in the memo, and the number as its state."""
    begin, end = b"h%c)R" % _STAND_IN_AT, pickle.dumps(_NONCE, PROTOCOL)[2:-1] + b"b"
    return re.compile(re.escape(begin) + b"(q.|r.{4})" + re.escape(end), re.DOTALL)


@functools.cache
def _key(number: int) -> tuple[str, bytes]:
    """The name that torch gives a storage, and how it is pickled."""
    return str(number), _pickled_text(str(number))


def _pickled_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _pickled_number(number: int) -> bytes:
    return pickle.dumps(number, PROTOCOL)[2:-1]


def _pickled_numbers(numbers: Sequence[int]) -> bytes:
    """A tuple of them."""
    content = b"".join(map(_pickled_number, numbers))
    return content + b"\x85" if len(numbers) == 1 else b"(" + content + b"t"
