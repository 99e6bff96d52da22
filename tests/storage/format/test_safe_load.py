"""A checkpoint with any objects is loaded, and no code of the file runs."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_values import ODD, Color

from checkpointable._errors import NotLoadedError
from checkpointable.storage.format import safe_load
from checkpointable.storage.format.placeholder import Placeholder, placeholders_in
from checkpointable.storage.format.same import same

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def archive(pickled: bytes) -> bytes:
    """A file as ``torch.save`` writes it, with these pickled objects."""
    plain, file = io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.arange(3.0)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickled if name.endswith("/data.pkl") else source.read(name))
    return file.getvalue()


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def load(data: bytes, weights_only: bool | None = None) -> Any:
    return safe_load.load(io.BytesIO(data), "a.ckpt", None, weights_only=weights_only)


@pytest.mark.parametrize("kind", ODD)
def test_load_of_an_odd_value_keeps_all_else(kind):
    data = saved({"odd": ODD[kind], "weight": torch.arange(3.0), "epoch": 1})
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(data), weights_only=True)  # the twin: without placeholders it is refused
    one, other = load(data), load(data, weights_only=True)
    assert one["weight"].equal(torch.arange(3.0))
    assert one["epoch"] == 1
    assert same(one, other), "two readings are equal"
    assert list(one) == list(torch.load(io.BytesIO(data), weights_only=False))
    assert not any(isinstance(it, tuple) for it in torch.serialization.get_safe_globals())


@pytest.mark.parametrize("kind", ODD)
def test_placeholder_of_an_odd_value_survives_copies_and_saves(kind):
    one = load(saved(ODD[kind]))
    again = saved(one)
    assert same(copy.deepcopy(one), one)
    assert same(load(again), one)
    assert same(load(saved(load(again))), one), "it is no placeholder of a placeholder"
    assert same(torch.load(io.BytesIO(again), weights_only=False), one)


def test_placeholders_of_other_values_differ():
    blue, red = load(saved([Color.BLUE, Color.RED]))
    assert (blue == red, blue != red, blue == "blue") == (False, True, False)
    assert len({blue, red, load(saved(Color.RED))}) == 2
    for name in ("numpy scalar", "defaultdict", "tree", "data class", "tensor of a class"):
        assert not same(load(saved(ODD[name])), load(saved(copy.deepcopy(ODD["enum"]))))
    assert not same(load(saved(torch.float32.to_complex)), torch.float32)


USES = {
    "call": lambda value: value(),
    "attribute": lambda value: value.width,
    "hasattr": lambda value: hasattr(value, "width"),
    "iterate": list,
    "item": lambda value: value[0],
    "in": lambda value: 1 in value,
    "truth": bool,
    "length": len,
    "number": float,
    "index": lambda value: [1, 2][value],
    "add": lambda value: value + 1,
    "radd": lambda value: 1 + value,
    "tensor": lambda value: torch.ones(1) * value,
    "less": lambda value: value < 1,
    "path": os.fspath,
    "with": lambda value: value.__enter__(),
    "state": lambda value: value.__setstate__({}),
}


@pytest.mark.parametrize("use", USES)
def test_use_of_a_placeholder_is_refused_with_the_cure(use):
    value = load(saved(ODD["data class"]))
    says = r"placeholder for a value made by odd_values.Config in a.ckpt.*\nPass weights_only=False .* or save a plain"
    with pytest.raises(NotLoadedError, match=says):
        USES[use](value)
    assert repr(value) == f"{value}" == "<odd_values.Config, not loaded>"


def test_placeholders_are_found_where_they_are():
    loaded = load(saved({"a": [1, {"b": Color.RED}], "c": {Color.RED: (Color.BLUE,)}, "r": ODD["recursive"]}))
    assert [at for at, _ in placeholders_in(loaded)] == [
        *("['a'][1]['b']", "['c']", "['c'][<odd_values.Color, not loaded>][0]", "['r'][0][1]"),
    ]


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, trace: Path, *, nested: bool = False) -> None:
        self.trace, self.nested = trace, nested

    def __reduce__(self) -> Any:
        return (Path(self.trace).mkdir, ()) if self.nested else (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("nested", [False, True], ids=["function", "bound method"])
@pytest.mark.parametrize("inside", [None, "deque"], ids=["torch", "ours"])
def test_load_of_a_call_runs_nothing(tmp_path, nested, inside):
    trace = tmp_path / "trace"
    data = saved({"trap": Trap(trace, nested=nested), "more": ODD.get(inside)})
    assert isinstance(load(data)["trap"], Placeholder)
    assert not trace.exists()
    torch.load(io.BytesIO(data), weights_only=False)
    assert trace.exists(), "the twin: it is as bad as it is said to be"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# Each makes a directory, with the pickle module, where its last part is run.
def calls(trace: Path) -> dict[str, bytes]:
    path = text(str(trace))
    mkdir, arguments = b"cos\nmkdir\n", path + b"\x85"
    return {
        "REDUCE": b"\x80\x02" + mkdir + arguments + b"R.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\ncos\npath\n" + text("os") + b"\x86R" + arguments + b"R.",
        "name with dots": b"\x80\x04ctorch\nos.mkdir\n" + arguments + b"R.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + arguments + b"R.",
        "INST": b"\x80\x02(" + path + b"ios\nmkdir\n.",
        "OBJ": b"\x80\x02(" + mkdir + path + b"o.",
        "NEWOBJ": b"\x80\x02" + mkdir + arguments + b"\x81.",
        "NEWOBJ_EX": b"\x80\x04" + mkdir + arguments + b"}\x92.",
        "BUILD": b"\x80\x02" + mkdir + b"}" + text("__setstate__") + mkdir + b"sb.",
        "in torch's own rebuild": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n("
        + mkdir + b"ctorch\nTensor\n" + arguments + b"}tR.",
        "as a state of our placeholder": b"\x80\x02ccheckpointable.storage.format.placeholder\nPlaceholder\n"
        + text("os.mkdir") + b"\x85R]((K\x00" + mkdir + arguments + b"Rteb.",
        "EXT": b"\x80\x02\x82\x01" + arguments + b"R.",
        "PERSID": b"\x80\x02Pos.mkdir\n.",
        "BINPERSID of a module": b"\x80\x02(" + text("module") + mkdir + arguments + b"RtQ.",
        "BINPERSID with a function as the storage": b"\x80\x02(" + text("storage") + mkdir + text("0") + text("cpu")
        + b"K\x03tQ.",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")  # torch's, for those that it refuses
@pytest.mark.parametrize("how", calls(Path("x")))
@pytest.mark.parametrize("by", ["load", "ours"])
def test_load_of_a_crafted_pickle_runs_nothing(tmp_path, how, by):
    trace = tmp_path / "trace"
    data = archive(calls(trace)[how])
    try:
        if by == "load":
            load(data)
        else:
            safe_load._load_with_ours(io.BytesIO(data), safe_load.Loading("a.ckpt"), None, ValueError())
    except pickle.UnpicklingError as error:
        assert "weights_only=False" in str(error)  # noqa: PT017  # others are loaded, as a placeholder
    assert not trace.exists()


@pytest.mark.parametrize("how", ["REDUCE", "STACK_GLOBAL", "INST", "OBJ", "in torch's own rebuild"])
def test_crafted_pickle_runs_for_whoever_asks_for_it(tmp_path, how):
    """The twin."""
    with contextlib.suppress(AttributeError):  # of torch's own function, after the call
        torch.load(io.BytesIO(archive(calls(tmp_path / "trace")[how])), weights_only=False)
    assert (tmp_path / "trace").exists()


CHANGES = {
    "state": b"}" + text("__defaults__") + b"K\x01\x85sb",
    "slots": b"N}" + text("__defaults__") + b"K\x01\x85s\x86b",
}


@pytest.mark.parametrize("how", CHANGES)
def test_load_changes_no_function_of_torch(how):
    rebuild = torch._utils._rebuild_tensor_v2
    before = (rebuild.__defaults__, dict(vars(rebuild)))
    with pytest.raises(pickle.UnpicklingError, match=r"a\.ckpt without running code .*: a state for a function"):
        load(archive(b"\x80\x02" + REBUILD + CHANGES[how] + b"."))
    assert (rebuild.__defaults__, dict(vars(rebuild))) == before


def test_unpickler_without_the_check_of_states_changes_a_function_of_torch(monkeypatch):
    """The twin."""
    rebuild = torch._utils._rebuild_tensor_v2
    monkeypatch.setattr(rebuild, "__defaults__", rebuild.__defaults__)
    monkeypatch.setitem(safe_load._Unpickler.dispatch, pickle.BUILD[0], pickle._Unpickler.load_build)
    load(archive(b"\x80\x02" + REBUILD + CHANGES["slots"] + b"."))
    assert rebuild.__defaults__ == (1,)


REFUSED = {
    "items for a function": REBUILD + b"]a.",
    "entries for a function": REBUILD + b"NNs.",
    "a call of a str": text("a") + b")R.",
    "arguments of a list": b"cos\nmkdir\n]R.",
    "an object of a function": REBUILD + b")\x81.",
    "an endless text": b"X\xff\xff\xff\xff.",
    "a large array of bytes": b"\x96" + b"\xff" * 6 + b"\x00\x00.",
    "a large frame": b"\x95" + b"\xff" * 6 + b"\x00\x00.",
    "nothing": b"",
    "no value": b".",
    "an unknown memo": b"h\x07.",
    "a deep list": b"(" * 50_000 + b".",
}


@pytest.mark.parametrize("what", REFUSED)
def test_load_of_what_no_checkpoint_holds_is_refused_with_the_cure(what):
    with pytest.raises(
        pickle.UnpicklingError, match=r"cannot load a\.ckpt without running code from it \(weights_only"
    ):
        load(archive(b"\x80\x02" + REFUSED[what]))


def test_memo_with_a_large_number_takes_no_memory():
    assert load(archive(b"\x80\x02" + text("a") + b"r\xff\xff\xff\x7f.")) == "a"


def test_class_that_the_user_calls_safe_is_loaded_as_itself():
    data = saved([ODD["data class"], ODD["deque"], ODD["list of a class"]])
    with torch.serialization.safe_globals([type(ODD["data class"]), type(ODD["list of a class"])]):
        config, deque, items = load(data)
    assert config == ODD["data class"]
    assert isinstance(deque, Placeholder)
    assert items == [1, 2]


def test_tensors_beside_what_torch_refuses_are_loaded():
    tensors = [
        torch.arange(4.0).view(2, 2).t(),
        torch.nn.Parameter(torch.ones(2)),
        torch.tensor([1, 2], dtype=torch.uint16),
        torch.ones(2, dtype=torch.bfloat16),
        torch.eye(2).to_sparse(),
        torch.zeros(2, device="meta"),
    ]
    *loaded, _ = load(saved([*tensors, ODD["deque"]]))
    assert [type(it) for it in loaded] == [type(it) for it in tensors]
    assert all(it.dtype == was.dtype and it.shape == was.shape for it, was in zip(loaded, tensors, strict=True))
    assert all(it.to_dense().equal(was.to_dense()) for it, was in zip(loaded[:5], tensors[:5], strict=True))


@pytest.mark.parametrize("kind", ["enum", "defaultdict of lists", "deque"])
def test_placeholder_that_was_saved_is_the_same_where_torch_refuses_the_file(kind):
    def with_ours(content):
        loading = safe_load.Loading("a file")
        with torch.serialization.safe_globals([(safe_load.Placeholder, safe_load._SELF)]):
            return safe_load._load_with_ours(io.BytesIO(content), loading, None, ValueError())

    one = with_ours(saved(ODD[kind]))
    assert same(with_ours(saved(one)), one)


def test_placeholder_assigned_to_a_module_in_the_place_of_a_layer_says_what_it_is():
    module, odd = torch.nn.Sequential(torch.nn.Linear(1, 1)), load(saved({"layer": Path("a")}))["layer"]
    module.register_buffer("mean", torch.zeros(1))
    for owner, name in ((module, "0"), (module[0], "weight"), (module, "mean")):
        with pytest.raises(NotLoadedError, match=r"in the place of a parameter.*\n.*weights_only=False"):
            setattr(owner, name, odd)
    module.odd = odd  # the twin: any other attribute holds it
    assert isinstance(module.odd, Placeholder)
