"""A checkpoint of ours is loaded with each byte read once, and it is what torch loads."""

from __future__ import annotations

import io
import itertools
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from nets import durable_io

from checkpointable._errors import CheckpointFileError
from checkpointable.lightning_internals import checkpoint_io
from checkpointable.storage.format import read_once, verify
from checkpointable.storage.format.same import same

LARGE = torch.arange(1_500_000, dtype=torch.float32)  # several blocks


class Scaled:
    """Reads its tensor when it is unpickled."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"] * 2


def shared() -> dict[str, Any]:
    base = torch.arange(24, dtype=torch.float64)
    return {"whole": base, "view": base[3:9:2], "reshaped": base.view(4, 6).t(), "wide": base[:1].expand(1000)}


def kinds() -> dict[str, Any]:
    found = {str(dtype): torch.arange(7).to(dtype) for dtype in (torch.bool, torch.bfloat16, torch.int8, torch.int64)}
    return {**found, "complex": torch.randn(3, dtype=torch.complex64), "half": torch.randn(5).half()}


PLAIN = {
    "nothing": dict,
    "no data": lambda: {"empty": torch.empty(0), "also": torch.empty(3, 0), "again": torch.empty(0)},
    "between": lambda: {"a": torch.ones(2), "empty": torch.empty(0), "b": torch.full((2,), 2.0)},
    "large": lambda: {"large": LARGE, "small": torch.tensor(3.0), "odd": LARGE[:1_234_567].clone()},
    "shared": shared,
    "kinds": kinds,
    "parameters": lambda: {"p": torch.nn.Parameter(torch.randn(3)), "net": torch.nn.Linear(3, 2).state_dict()},
    "many of one size": lambda: {f"w{at}": torch.full((5,), float(at)) for at in range(300)},
    "any order": lambda: {"last": [{"b": torch.ones(3), "a": torch.zeros(3)}], "first": (torch.full((3,), 9.0),)},
}


def nested(**layout: Any) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], **layout)


def quantized() -> torch.Tensor:
    scales, zeros = torch.tensor([0.1, 0.2]), torch.tensor([0, 1])
    return torch.quantize_per_channel(torch.tensor([[0.3, 0.1], [0.4, 0.2]]), scales, zeros, 0, torch.qint8)


NEEDS_DATA = {
    "sparse": (lambda: torch.eye(4).to_sparse(), torch.Tensor.to_dense),
    "nested": (nested, lambda it: list(it.unbind())),
    "jagged": (lambda: nested(layout=torch.jagged), lambda it: list(it.unbind())),
    "quantized": (quantized, torch.Tensor.dequantize),
}


def saved(path: Path, content: dict[str, Any]) -> Path:
    durable_io().save_checkpoint({**content, "checkpointable": {"metadata": {"epoch": 1}}}, path)
    return path


def read(path: Path) -> read_once.Loaded | None:
    with open(path, "rb") as file:
        return read_once.load(file, str(path), weights_only=True)


def addresses(content: Any) -> list[int]:
    """Which tensors share memory: the number of the first one with the same storage."""
    tensors = list(tensors_in(content))
    found = [it.untyped_storage().data_ptr() for it in tensors]
    return [found.index(address) for address in found]


def tensors_in(content: Any) -> Any:
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict):
        yield from itertools.chain.from_iterable(map(tensors_in, content.values()))
    elif isinstance(content, (list, tuple)):
        yield from itertools.chain.from_iterable(map(tensors_in, content))


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_read_once_is_what_torch_loads(tmp_path, kind):
    path = saved(tmp_path / "a.ckpt", PLAIN[kind]())
    loaded = read(path)
    assert loaded is not None
    assert loaded.problem is None
    of_torch = torch.load(path, weights_only=True)
    assert same(loaded.content, of_torch)
    assert addresses(loaded.content) == addresses(of_torch)
    assert [it.requires_grad for it in tensors_in(loaded.content)] == [it.requires_grad for it in tensors_in(of_torch)]


def test_storages_in_another_order_than_torch_asks_for_would_be_wrong(tmp_path, monkeypatch):
    path, stored = saved(tmp_path / "a.ckpt", PLAIN["many of one size"]()), read_once._stored
    monkeypatch.setattr(read_once, "_stored", lambda file: stored(file)[::-1])
    loaded = read(path)
    assert loaded.problem is None  # the twin: no checksum shows it, so that the order must be torch's
    assert not same(loaded.content, torch.load(path, weights_only=True))


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors", "ignore:torch.quantize_per_tensor", "ignore:TypedStorage"
)
@pytest.mark.parametrize("kind", NEEDS_DATA)
def test_what_torch_cannot_make_without_its_data_is_verified_first(tmp_path, kind):
    make, plain = NEEDS_DATA[kind]
    path = saved(tmp_path / "a.ckpt", {"odd": make(), "large": LARGE})
    assert read(path) is None
    loaded = durable_io().load_checkpoint(path)
    assert same(loaded["large"], LARGE)
    assert same(plain(loaded["odd"]), plain(make()))


def test_object_that_the_user_has_called_safe_gets_its_data(tmp_path):
    path = saved(tmp_path / "a.ckpt", {"scaled": Scaled(torch.ones(3)), "large": LARGE})
    with torch.serialization.safe_globals([Scaled]):
        assert read(path) is None
        assert torch.equal(durable_io().load_checkpoint(path)["scaled"].weight, torch.full((3,), 2.0))


def test_objects_that_are_keys_are_compared_with_their_data(tmp_path):
    path = saved(tmp_path / "a.ckpt", {"scaled": {Scaled(torch.full((3,), float(at))) for at in range(3)}})
    assert read(path) is None
    assert len(durable_io().load_checkpoint(path)["scaled"]) == 3


@pytest.mark.parametrize("damaged", ["of another byte order", "of another library", "its objects", "its directory"])
def test_file_that_may_be_made_of_other_bytes_is_not_made(tmp_path, damaged):
    path = saved(tmp_path / "a.ckpt", {"weight": LARGE})
    bits = bytearray(path.read_bytes())
    if damaged == "of another library":
        torch.save({"weight": LARGE}, path)
    elif damaged == "of another byte order":
        bits[bits.rindex(b"archive/byteorder") - 30] ^= 1  # its checksum in the directory
    else:
        bits[bits.index(b"weight") if damaged == "its objects" else bits.rindex(b"archive/data/0") - 30] ^= 1
    if damaged != "of another library":
        path.write_bytes(bits)
    assert read(path) is None


def test_storages_that_do_not_fit_the_file_are_dropped(tmp_path, monkeypatch):
    path, stored = saved(tmp_path / "a.ckpt", PLAIN["shared"]()), read_once._stored
    monkeypatch.setattr(read_once, "_stored", lambda file: [it._replace(size=it.size - 8) for it in stored(file)])
    assert read(path) is None
    assert same(durable_io().load_checkpoint(path), torch.load(path, weights_only=True))


@pytest.mark.parametrize("at", [0, 1 << 20, -1], ids=["first block", "second block", "last byte"])
def test_flipped_bit_in_the_data_is_found_while_it_is_read(tmp_path, at):
    path = saved(tmp_path / "a.ckpt", {"small": torch.ones(3), "weight": LARGE})
    bits, data = bytearray(path.read_bytes()), LARGE.numpy().tobytes()
    bits[bits.index(data) + (at % len(data))] ^= 1
    path.write_bytes(bits)
    assert "checksum of its member archive/data/1 does not match" in read(path).problem


def test_every_byte_of_a_file_is_looked_at(tmp_path):
    path = saved(tmp_path / "a.ckpt", {"weight": torch.arange(9.0)})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointFileError):
            durable_io().load_checkpoint(path)


def test_data_is_read_once(tmp_path, monkeypatch):
    path, preadv, counted = saved(tmp_path / "a.ckpt", {"weight": LARGE}), os.preadv, []

    def counting(descriptor: int, buffers: list[memoryview], at: int) -> int:
        counted.append(preadv(descriptor, buffers, at))
        return counted[-1]

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            counted.append(super().readinto(buffer))
            return counted[-1]

    monkeypatch.setattr(os, "preadv", counting)
    monkeypatch.setattr(checkpoint_io, "open_file", lambda place: io.BufferedReader(Counting(place)))
    durable_io().load_checkpoint(path)
    assert LARGE.nbytes <= sum(counted) < 1.1 * LARGE.nbytes + 200_000


def test_file_that_is_cut_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, fill = saved(tmp_path / "a.ckpt", {"weight": LARGE}), read_once._fill

    def cutting(*args: Any) -> dict[bytes, int]:
        os.truncate(path, 100_000)
        return fill(*args)

    monkeypatch.setattr(read_once, "_fill", cutting)
    with pytest.raises(CheckpointFileError, match="not an intact zip archive"):
        durable_io().load_checkpoint(path)


def test_damage_that_is_gone_when_it_is_looked_at_again_is_none(tmp_path, monkeypatch):
    path, fill = saved(tmp_path / "a.ckpt", {"weight": LARGE}), read_once._fill

    def misreading(*args: Any) -> dict[bytes, int]:
        return {name: checksum ^ 1 for name, checksum in fill(*args).items()}

    monkeypatch.setattr(read_once, "_fill", misreading)
    assert read(path).problem is not None
    assert same(durable_io().load_checkpoint(path)["weight"], LARGE)


def test_interrupt_ends_the_reading(tmp_path, monkeypatch):
    path, preadv, others = saved(tmp_path / "a.ckpt", {f"w{at}": LARGE + at for at in range(8)}), os.preadv, []

    def interrupted(descriptor: int, buffers: list[memoryview], at: int) -> int:
        others.append(at)
        if len(others) == 3:
            raise KeyboardInterrupt
        return preadv(descriptor, buffers, at)

    monkeypatch.setattr(os, "preadv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        durable_io().load_checkpoint(path)
    assert len(others) < 8 * 6, "it has not read all"
    assert not [it for it in threading.enumerate() if it.name.startswith("checkpointable-read")]


@pytest.mark.parametrize("started", [0, 1])
def test_file_is_read_where_there_are_no_more_threads(tmp_path, monkeypatch, started):
    path, start, left = (
        saved(tmp_path / "a.ckpt", {f"w{at}": LARGE + at for at in range(8)}),
        threading.Thread.start,
        [],
    )

    def refusing(thread: threading.Thread) -> None:
        left.append(thread)
        if len(left) > started:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    loaded = read(path)
    assert loaded.problem is None
    assert same(loaded.content, torch.load(path, weights_only=True))
    assert len(left) == started + 1


def test_load_leaves_torch_as_it_was(tmp_path):
    path = saved(tmp_path / "a.ckpt", {"weight": LARGE})
    read(path)
    again: BinaryIO = io.BytesIO()
    torch.save({"weight": LARGE}, again)
    again.seek(0)
    assert same(torch.load(again, weights_only=True)["weight"], LARGE)
    assert verify.problem(path) is None
