"""Plain tensors are pickled without torch's pickler, to what it makes of them, and all others with it."""

from __future__ import annotations

import copyreg
import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch

from checkpointable.storage.format import plain_tensors, torch_records


def adam() -> Any:
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(5, 4)).sum().backward()
    optimizer.step()
    return {"state_dict": net.state_dict(), "optimizer_states": [optimizer.state_dict()], "epoch": 3}


def dtypes() -> Any:
    names = ["bfloat16", "float16", "float64", "complex64", "complex128", "bool", "uint8", "int8", "int16", "int32"]
    return {name: torch.zeros(9, dtype=getattr(torch, name)) for name in (*names, "int64", "float32")}


def many() -> Any:
    """Tensors whose places in the memo take one byte and four, some of them twice, between other objects."""
    tensors = [torch.full((1, 2, 3, 4), number) for number in range(300)]
    return [{f"name {number}": (it, it[0], number) for number, it in enumerate(tensors)}, *tensors[:3], *tensors[-3:]]


def shapes() -> Any:
    sizes = [(), (1,), (2, 3), (4, 5, 6), (1, 2, 3, 4), (300, 1), (70_000,), (0, 3)]
    empty = torch.empty(0)
    views = [torch.arange(500.0)[400:], torch.ones(3, 4).t(), empty, empty.view(torch.int32), torch.ones(2, 2)[:0]]
    return [torch.rand(size) for size in sizes] + views + [torch.ones(2, requires_grad=True)]


def shared() -> Any:
    base = torch.arange(60.0)
    return [base, base, base[10:20], base.view(6, 10).t(), torch.empty(0), torch.empty(0), torch.tensor(1)]


def of_torch(checkpoint: Any) -> dict[str, bytes]:
    file = io.BytesIO()
    torch.save(checkpoint, file)
    with zipfile.ZipFile(file) as opened:
        return {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}


class Calls(pickle.Unpickler):
    """Reads what a file says, without making tensors: each function and its arguments, and each persistent id."""

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        return found if isinstance(found, type) else lambda *arguments: Call((module, name, *arguments))

    def persistent_load(self, pid: Any) -> Any:
        return ("persistent", *pid)


class Call(list[Any]):
    """A list, so that it is seen whether the same one comes twice."""


def said(pickled: bytes) -> Any:
    """What a pickle says, in order, with the number of each call that comes again."""
    seen: dict[int, int] = {}

    def walked(value: Any) -> Any:
        if isinstance(value, Call):
            if id(value) in seen:
                return ("again", seen[id(value)])
            seen[id(value)] = len(seen)
        if isinstance(value, dict):
            return (type(value), [(key, walked(item)) for key, item in value.items()])
        if isinstance(value, (list, tuple)):
            return (type(value), [walked(item) for item in value])
        return (type(value), value)

    return walked(Calls(io.BytesIO(pickled)).load())


def as_bytes(data: bytes | torch.UntypedStorage) -> bytes:
    return data if isinstance(data, bytes) else bytes(data.tolist())


@pytest.fixture
def given_to_torch(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is left to torch's pickler."""
    whole, given = torch_records._records_of_torch, []

    def noting(checkpoint: Any) -> Any:
        given.extend([checkpoint] if checkpoint else [])
        return whole(checkpoint)

    monkeypatch.setattr(torch_records, "_records_of_torch", noting)
    return given


@pytest.mark.parametrize("made", [adam, dtypes, many, shapes, shared])
def test_plain_tensors_are_not_left_to_torch_and_give_its_records(
    made: Callable[[], Any], given_to_torch: list[Any]
) -> None:
    checkpoint = made()
    found, expected = torch_records.records(checkpoint), of_torch(checkpoint)
    assert given_to_torch == []
    assert [name for name, _ in found] == [
        name for name in expected if name not in ("version", ".data/serialization_id")
    ]
    pickled, of_them = dict(found)["data.pkl"], expected.pop("data.pkl")
    assert said(as_bytes(pickled)) == said(of_them)
    assert {name: as_bytes(data) for name, data in found if name in expected} == {
        name: data for name, data in expected.items() if name in dict(found)
    }


class LikeMark:
    """An object of a user that is pickled like the mark of a tensor."""

    def __reduce__(self) -> Any:
        return plain_tensors._MARK


def test_mark_of_the_user_leaves_the_checkpoint_to_torch(given_to_torch: list[Any]) -> None:
    checkpoint = {"object": LikeMark(), "tensor": torch.ones(2)}
    found = dict(torch_records.records(checkpoint))
    assert given_to_torch == [checkpoint]
    assert as_bytes(found["data.pkl"]) == of_torch(checkpoint)["data.pkl"]


ODD: dict[str, Callable[[], Any]] = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "uint16": lambda: torch.zeros(2, dtype=torch.uint16),
    "conjugate": lambda: torch.zeros(2, dtype=torch.complex64).conj(),
    "negative": lambda: torch._neg_view(torch.ones(2)),
    "meta": lambda: torch.zeros(2, device="meta"),
    "storage": lambda: torch.ones(2).untyped_storage(),
    "typed storage": lambda: torch.FloatStorage(2).fill_(0),
    "with an attribute": lambda: setattr(made := torch.ones(2), "note", "a text") or made,
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.filterwarnings("ignore")
def test_any_other_tensor_leaves_the_checkpoint_to_torch(kind: str, given_to_torch: list[Any]) -> None:
    checkpoint = {"plain": torch.ones(3), "odd": ODD[kind]()}
    found = dict(torch_records.records(checkpoint))
    assert given_to_torch == [checkpoint]
    assert as_bytes(found["data.pkl"]) == of_torch(checkpoint)["data.pkl"]


def test_memory_that_is_seen_as_two_types_is_refused_as_by_torch() -> None:
    base = torch.zeros(4)
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        torch_records.records({"a": base, "b": base.view(torch.int32)})


def test_wrong_kind_of_storage_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin."""
    kinds = {**plain_tensors.storage_kinds(), torch.float32: torch.IntStorage}
    monkeypatch.setattr(plain_tensors, "storage_kinds", lambda: kinds)
    found = as_bytes(dict(torch_records.records(shared()))["data.pkl"])
    assert said(found) != said(of_torch(shared())["data.pkl"])


def test_reducer_of_the_user_for_tensors_is_torchs_to_call(given_to_torch: list[Any]) -> None:
    copyreg.pickle(torch.Tensor, lambda tensor: (list, (tensor.tolist(),)))
    try:
        checkpoint = {"a": torch.ones(2)}
        found = dict(torch_records.records(checkpoint))
        assert given_to_torch == [checkpoint]
        assert as_bytes(found["data.pkl"]) == of_torch(checkpoint)["data.pkl"]
    finally:
        del copyreg.dispatch_table[torch.Tensor]
