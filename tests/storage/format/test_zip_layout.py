"""Our files against ``torch.save``'s own, byte for byte."""

from __future__ import annotations

import collections
import io
import math
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.serialization
from nets import write_archive
from torch.utils.serialization import config

from checkpointable.storage.format import torch_records
from checkpointable.storage.staging.snapshot import Snapshot

ID = "archive/.data/serialization_id"


class Tagged(torch.Tensor):
    """A subclass, with an attribute."""


class Wrapped:
    """An object that makes the tensors of its state when it is asked for it."""

    def __init__(self) -> None:
        self.counts = [1, 2, 3]

    def __getstate__(self) -> dict[str, Any]:
        return {"counts": torch.tensor(self.counts)}


def tied() -> Any:
    first, second = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    second.weight = first.weight
    return torch.nn.ModuleList([first, second]).state_dict()


def views() -> Any:
    base = torch.arange(600.0)
    expanded = torch.ones(1, 1).expand(400, 500)
    return [base, base[100:200], base.view(20, 30).t(), base[::7], expanded, base.as_strided((3, 2), (1, 1), 590)]


def empty() -> Any:
    return {"none": torch.empty(0), "wide": torch.empty(0, 7, dtype=torch.int8), "one": torch.tensor(3.5), "dict": {}}


def kinds() -> Any:
    names = ["bfloat16", "float16", "float64", "complex64", "complex128", "bool", "uint8", "int16", "uint16", "uint32"]
    names += ["uint64", "float8_e4m3fn", "float8_e5m2"]
    return {name: torch.zeros(9, dtype=getattr(torch, name)) for name in names if hasattr(torch, name)}


def sparse() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compressed layouts are announced as a beta
        coordinates = torch.sparse_coo_tensor([[0, 1, 1], [2, 0, 2]], [3.0, 4.0, 5.0], (2, 3))
        return [coordinates, coordinates.coalesce(), coordinates.to_sparse_csr(), coordinates.to_sparse_csc()]


def quantised() -> Any:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this build of torch does not quantise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on its way out of torch
        whole = torch.quantize_per_tensor(torch.randn(4, 6), 0.1, 10, torch.quint8)
        scales, zeros = torch.rand(4, dtype=torch.double) + 0.1, torch.zeros(4, dtype=torch.long)
        return [whole, torch.quantize_per_channel(torch.randn(4, 6), scales, zeros, 0, torch.qint8)]


def conjugate() -> Any:
    numbers = torch.complex(torch.randn(8), torch.randn(8))
    return {"conj": numbers.conj(), "raw": numbers, "neg": torch._neg_view(torch.randn(5)), "view": numbers[2:5].conj()}


def subclasses() -> Any:
    tagged = torch.randn(3).as_subclass(Tagged)
    tagged.note = "a text"
    buffer = torch.nn.Buffer(torch.ones(2)) if hasattr(torch.nn, "Buffer") else None
    frozen = torch.nn.Parameter(torch.ones(4), requires_grad=False)
    plain = torch.randn(3)
    plain.note = "a text"
    return [tagged, plain, torch.nn.Parameter(torch.randn(3, 3)), frozen, buffer, torch.ones(2, requires_grad=True)]


def modules() -> Any:
    parameters = torch.nn.ParameterDict(
        {"größe": torch.nn.Parameter(torch.ones(2)), "b": torch.nn.Parameter(torch.ones(1))}
    )
    batch_norm = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    return {"dict": parameters.state_dict(), "norm": batch_norm.state_dict(), "whole": batch_norm}


def texts() -> Any:
    return {
        "größe": torch.ones(3),
        "世界": {"\U0001f600": [None, True, 2**70, 1.5, math.inf, b"\0\xff", "\0"]},
        (1, 2): {3},
    }


def arrays() -> Any:
    array = np.arange(5000.0)
    return {
        "array": array,
        "view": array[::3],
        "scalar": np.float32(2),
        "random": np.random.default_rng(0).bit_generator.state,
    }


def optimizers() -> Any:
    net = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.Linear(40, 2))
    states = []
    for kind in (torch.optim.AdamW, torch.optim.SGD, torch.optim.LBFGS):
        optimizer = kind(net.parameters(), lr=0.1)
        loss = net(torch.ones(3, 40)).sum()
        loss.backward()
        optimizer.step(lambda loss=loss: loss.detach())
        states.append(optimizer.state_dict())
    return {"optimizer_states": states, "rng": torch.get_rng_state(), "order": collections.OrderedDict(a=torch.ones(1))}


def storages() -> Any:
    tensor = torch.arange(10.0)
    return [tensor.untyped_storage(), torch.ones(3, dtype=torch.uint8).untyped_storage(), Wrapped()]


def sizes() -> Any:
    """Around every boundary of the alignment, and with names of several lengths."""
    return [torch.zeros(size, dtype=torch.uint8) for size in (*range(1, 140), 4095, 4096, 4097, (1 << 23) + 1)]


KINDS = [tied, views, empty, kinds, sparse, quantised, conjugate, subclasses, modules, texts, arrays, optimizers]
KINDS += [storages, sizes]


def ours(checkpoint: Any, metadata: Any = None) -> bytes:
    file = io.BytesIO()
    write_archive(checkpoint, file, metadata)
    return file.getvalue()


def theirs(checkpoint: Any) -> bytes:
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


def without_id(data: bytes) -> bytes:
    """A file but for the archive's serialization id, which is a hash of torch's own, and its two checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        info, content = opened.getinfo(ID), opened.read(ID)
    data = data.replace(content, b"#" * len(content), 1)
    place = info.header_offset
    return data[:place] + data[place:].replace(struct.pack("<I", info.CRC), b"####")


def flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in flat(item)] if isinstance(value, (list, tuple)) else []


def octets(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


@pytest.fixture
def pickled_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own pickle says the same in other bytes (``test_torch_records.py``)."""
    monkeypatch.setattr(torch_records, "records", torch_records._records_of_torch)


@pytest.mark.usefixtures("pickled_by_torch")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_file_of_this_kind_is_byte_for_byte_what_torch_writes(kind: Callable[[], Any]) -> None:
    checkpoint = {"content": kind()}
    assert without_id(ours(checkpoint)) == without_id(theirs(checkpoint))


@pytest.mark.usefixtures("pickled_by_torch")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_file_with_metadata_of_this_kind_begins_as_torchs_file(kind: Callable[[], Any]) -> None:
    checkpoint = {"content": kind()}
    plain = theirs(checkpoint)
    with zipfile.ZipFile(io.BytesIO(plain)) as opened:
        start = opened.getinfo(ID).header_offset
    assert ours(checkpoint, {"epoch": 1})[:start] == plain[:start]


@pytest.mark.usefixtures("pickled_by_torch")
@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_file_with_another_alignment_is_byte_for_byte_what_torch_writes(alignment: int) -> None:
    checkpoint = {"sizes": sizes(), "views": views()}
    with config.patch("save.storage_alignment", alignment):
        assert without_id(ours(checkpoint)) == without_id(theirs(checkpoint))


def test_file_with_a_wrong_alignment_differs() -> None:
    """The twin."""
    checkpoint = {"views": views()}
    plain = theirs(checkpoint)
    with config.patch("save.storage_alignment", 128):
        assert without_id(ours(checkpoint)) != without_id(plain)


@pytest.mark.parametrize("offsets", [False, True], ids=["read", "calculated"])
@pytest.mark.parametrize("mmap", [False, True], ids=["copied", "mapped"])
@pytest.mark.parametrize("kind", [tied, views, empty, kinds, optimizers, sizes], ids=lambda kind: kind.__name__)
def test_file_loads_equal_in_every_way_that_torch_loads(
    tmp_path: Path, kind: Callable[[], Any], mmap: bool, offsets: bool
) -> None:
    checkpoint, path = {"content": kind()}, tmp_path / "a.ckpt"
    path.write_bytes(ours(checkpoint, {"epoch": 1}))
    with config.patch("load.calculate_storage_offsets", offsets):
        loaded = torch.load(path, weights_only=True, mmap=mmap)
    expected, found = flat(checkpoint), flat(loaded)
    assert len(expected) == len(found) > 0
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert (one.shape, one.stride()) == (other.shape, other.stride())
        assert torch.equal(octets(one), octets(other))


def test_large_tensors_leave_as_views_of_their_memory_and_small_ones_joined() -> None:
    large, small = torch.randn(1 << 20), [torch.randn(10) for _ in range(500)]
    taken = Snapshot({"small": small, "large": large}, {"epoch": 1})
    pieces = list(taken.pieces())
    assert len(pieces) == 3
    assert np.frombuffer(pieces[1], np.float32).ctypes.data == large.data_ptr()
    assert b"".join(pieces) == ours({"small": small, "large": large}, {"epoch": 1})


def test_small_tensors_leave_in_pieces_of_128_kb_and_more() -> None:
    lengths = [len(piece) for piece in Snapshot({"a": [torch.zeros(15_000) for _ in range(100)]}, None).pieces()]
    assert len(lengths) == 34
    assert max(lengths) < (1 << 17) + (1 << 16)
