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


@pytest.fixture
def many(tmp_path: Path) -> tuple[LocalStore, list[str]]:
    """A store with 99 files in two directories, one of them below, and their paths."""
    store = LocalStore(tmp_path)
    (tmp_path / "below").mkdir()
    paths = [store.path(f"{'below/' if number % 2 else ''}{number}.ckpt") for number in range(99)]
    for path in paths:
        Path(path).touch()
    return store, paths


@pytest.mark.parametrize("asked", [1, 99], ids=["few", "many"])
def test_present_tells_what_is_there_however_many_are_asked_for(many: tuple[LocalStore, list[str]], asked: int) -> None:
    store, paths = many
    (Path(store.directory) / "link.ckpt").symlink_to("nothing")
    (Path(store.directory) / "good.ckpt").symlink_to("0.ckpt")
    there = store.present(paths[:asked])
    assert all(path in there for path in paths)
    assert store.path("good.ckpt") in there
    missing = ("other.ckpt", "link.ckpt", "gone/0.ckpt", "below/0.ckpt")
    assert not [name for name in missing if store.path(name) in there]


def test_present_asks_file_by_file_where_a_directory_cannot_be_listed(
    many: tuple[LocalStore, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "may not be listed", path)

    store, paths = many
    monkeypatch.setattr(os, "scandir", refuse)
    there = store.present(paths)
    assert all(path in there for path in paths)
    assert store.path("other.ckpt") not in there


def test_contains_is_of_whole_names_of_directories(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "run")
    assert store.contains(store.path("a.ckpt"))
    assert store.contains(store.path("below/a.ckpt"))
    assert not store.contains(str(tmp_path / "run2" / "a.ckpt"))
    assert not store.contains(str(tmp_path / "run"))


def test_root_contains_everything() -> None:
    assert LocalStore("/").contains("/a.ckpt")
