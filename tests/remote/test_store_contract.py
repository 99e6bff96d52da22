"""A store on each kind of remote file system does what every store does."""

from __future__ import annotations

import pytest
from remote import conftest
from storage.store_contract import StoreContract

from checkpointable.storage.store import Store


class TestRemoteStore(StoreContract):
    @pytest.fixture
    def store(self, place: str, store_at) -> Store:
        return store_at(place)

    def put(self, path: str, data: bytes) -> str:
        return conftest.put(path, data)

    def get(self, path: str) -> bytes:
        return conftest.get(path)

    def names(self, store: Store) -> list[str]:
        return conftest.names(store.directory)
