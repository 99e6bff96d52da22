"""Runs the command in this process, as a shell with 80 columns and no terminal would."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

from checkpointable.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command has done."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


Command = Callable[..., Done]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run it in a directory of the test's own."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        code = main([str(it) for it in arguments])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def at_url() -> Callable[[Path], str]:
    """Copy a directory to a remote file system; returns its URL."""

    def copy(folder: Path) -> str:
        url = f"memory://{secrets.token_hex(8)}/{folder.name}"
        files = fsspec.filesystem("memory")
        for path in folder.rglob("*"):
            if path.is_file():
                files.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())
        return url

    return copy
