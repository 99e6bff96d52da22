"""Real checkpoint files, made small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import write_archive

Make = Callable[..., str]


def metadata(**changed: Any) -> dict[str, Any]:
    plain = {
        "format": 1,
        "kind": "interval",
        "run_id": "run",
        "epoch": 0,
        "batch": 0,
        "step": 0,
        "batches": 0,
        "metrics": {},
        "score": None,
        "created": 1000.0,
        "weights_only": False,
        "resumed_from": None,
        "exactness": None,
    }
    lineage = {"attempt": "", "generation": changed.pop("generation", 0), "ancestors": []}
    return {**plain, "lineage": lineage, "reasons": [changed.get("kind", "interval")], **changed}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write ``name`` below ``tmp_path``; ``score=0.5`` alone means a ``val_loss`` of which low is best."""

    def write(
        name: str, *, score: float | None = None, monitor: str = "val_loss", mode: str = "min", **given: Any
    ) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if score is not None:
            given["score"] = {"monitor": monitor, "mode": mode, "value": score}
            given.setdefault("metrics", {monitor: score})
        given.setdefault("batches", given.get("batch", 0))
        with open(path, "x+b") as file:
            write_archive({"state_dict": {"weight": torch.arange(1000.0)}}, file, metadata(**given))
        return str(path)

    return write


def flip_a_bit(path: str) -> None:
    """In the middle: among the bytes of the tensor."""
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)


def truncate(path: str) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])


def empty(path: str) -> None:
    Path(path).write_bytes(b"")


def fill_with_text(path: str) -> None:
    Path(path).write_text("these are no weights\n")


DAMAGE = {
    "bit": (flip_a_bit, "checksum of its member"),
    "truncated": (truncate, "not an intact zip archive"),
    "empty": (empty, "an empty file"),
    "text": (fill_with_text, "not an intact zip archive"),
}
