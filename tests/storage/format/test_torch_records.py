"""Plain tensors are pickled without torch's pickler, and all others with it."""

from __future__ import annotations

import copyreg
import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch

from checkpointable.storage.format import torch_records


def adam() -> Any:
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(5, 4)).sum().backward()
    optimizer.step()
    return {"state_dict": net.state_dict(), "optimizer_states": [optimizer.state_dict()], "epoch": 3}


def dtypes() -> Any:
    names = ["bfloat16", "float16", "float64", "complex64", "complex128", "bool", "uint8", "int8", "int16", "int32"]
    return {name: torch.zeros(9, dtype=getattr(torch, name)) for name in (*names, "int64", "float32")}


def shared() -> Any:
    base = torch.arange(60.0)
    return [base, base, base[10:20], base.view(6, 10).t(), torch.empty(0), torch.empty(0), torch.tensor(1)]


def of_torch(checkpoint: Any) -> dict[str, bytes]:
    file = io.BytesIO()
    torch.save(checkpoint, file)
    with zipfile.ZipFile(file) as opened:
        return {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}


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


@pytest.mark.parametrize("made", [adam, dtypes, shared])
def test_plain_tensors_are_not_left_to_torch_and_give_its_records(
    made: Callable[[], Any], given_to_torch: list[Any]
) -> None:
    checkpoint = made()
    found, expected = torch_records.records(checkpoint), of_torch(checkpoint)
    assert given_to_torch == []
    assert [name for name, _ in found] == [
        name for name in expected if name not in ("version", ".data/serialization_id")
    ]
    assert {name: as_bytes(data) for name, data in found} == {name: expected[name] for name, _ in found}


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
    kinds = {**torch_records._storage_kinds(), torch.float32: torch.IntStorage}
    monkeypatch.setattr(torch_records, "_storage_kinds", lambda: kinds)
    assert as_bytes(dict(torch_records.records(shared()))["data.pkl"]) != of_torch(shared())["data.pkl"]


def test_reducer_of_the_user_for_tensors_is_torchs_to_call(given_to_torch: list[Any]) -> None:
    copyreg.pickle(torch.Tensor, lambda tensor: (list, (tensor.tolist(),)))
    try:
        checkpoint = {"a": torch.ones(2)}
        found = dict(torch_records.records(checkpoint))
        assert given_to_torch == [checkpoint]
        assert as_bytes(found["data.pkl"]) == of_torch(checkpoint)["data.pkl"]
    finally:
        del copyreg.dispatch_table[torch.Tensor]
