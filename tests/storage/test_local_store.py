"""A store in a local directory does what every store does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from storage.store_contract import StoreContract

from checkpointable.storage.local import LocalStore
from checkpointable.storage.store import Store


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "runs" / "a")

    def put(self, path: str, data: bytes) -> str:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
        return path

    def get(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def names(self, store: Store) -> list[str]:
        below = Path(store.directory).rglob("*")
        return sorted(
            str(path.relative_to(store.directory)).replace(os.sep, "/") for path in below if not path.is_dir()
        )
