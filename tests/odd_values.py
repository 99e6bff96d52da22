"""Values of many kinds that ``torch.load(weights_only=True)`` refuses, as people save them among hyper-parameters."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import re
import types
import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities.data import AttributeDict


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Config:
    width: int = 3
    layers: list[int] = field(default_factory=lambda: [1, 2])


@dataclass(frozen=True, slots=True)
class Frozen:
    width: int = 3


class Size(NamedTuple):
    height: int
    width: int


class Items(list):
    """A list with a name."""

    name = "items"


class Marked(torch.Tensor):
    """A tensor of another class, as MONAI's ``MetaTensor`` is one."""

    def __deepcopy__(self, memo: Any) -> Any:
        return self.clone()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec)


class Tree:
    """Pickled as OmegaConf's containers are: a state with the content, whose parts know their parent."""

    def __init__(self, content: dict[str, Any], parent: Tree | None = None) -> None:
        self.__dict__["_content"] = {k: Tree(v, self) if isinstance(v, dict) else v for k, v in content.items()}
        self.__dict__["_parent"] = parent
        self.__dict__["_flags"] = {"struct": True}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "ref_type": Any}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Normalizer:
    """A library's normalizer: arrays, a function, keyword arguments for ``__new__``."""

    def __new__(cls, *, scale: float = 1.0) -> Normalizer:
        return super().__new__(cls)

    def __init__(self, *, scale: float = 1.0) -> None:
        self.mean, self.scale, self.function = np.zeros(3), scale, np.tanh

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"scale": self.scale}


def recursive() -> list[Any]:
    """A list in a tuple in itself."""
    inside: list[Any] = []
    inside.append((inside, Color.RED))
    return inside


ODD: dict[str, Any] = {
    "numpy scalar": np.float64(0.1),
    "numpy array": np.arange(3),
    "numpy generator": np.random.default_rng(0),
    "argparse.Namespace": argparse.Namespace(lr=0.1, sizes=[1, 2]),
    "types.SimpleNamespace": types.SimpleNamespace(lr=0.1),
    "partial": functools.partial(torch.optim.SGD, lr=0.1),
    "partial of os": functools.partial(pathlib.os.path.join, "a"),
    "bound method": "{:d}".format,
    "enum": Color.RED,
    "enum as key": {Color.RED: 1, Color.BLUE: 2},
    "int enum": Level.LOW,
    "defaultdict": collections.defaultdict(float, a=1.0),
    "defaultdict of lists": collections.defaultdict(list, a=[1], b=[Color.RED]),
    "deque": collections.deque([1, 2], maxlen=3),
    "AttributeDict": AttributeDict(a=1, b=AttributeDict(c=2)),
    "list of a class": Items([1, 2]),
    "data class": Config(),
    "frozen data class": Frozen(),
    "named tuple": Size(1, 2),
    "class": torch.nn.ReLU,
    "function": torch.nn.functional.relu,
    "module": torch.nn.Linear(2, 2),
    "tensor of a class": torch.ones(2).as_subclass(Marked),
    "tree": Tree({"model": {"width": 3, "act": "relu"}}),
    "normalizer": Normalizer(scale=2.0),
    "path": pathlib.Path("data"),
    "timedelta": datetime.timedelta(1),
    "decimal": decimal.Decimal("0.1"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=7),
    "pattern": re.compile("a+"),
    "range": range(3),
    "slice": slice(1, 2),
    "frozenset": frozenset({1, 2}),
    "set of enums": {Color.RED, Color.BLUE},
    "exception": ValueError("no"),
    "object": object(),
    "large number": 10**700,
    "recursive": recursive(),
}
