"""A server, a wire to it, and a place for each test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from remote.server import Server, Wire, environment
from s3fs import S3FileSystem

from checkpointable.storage.paths import filesystem
from checkpointable.storage.remote import RemoteStore


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def _wire(_server: Server) -> Iterator[Wire]:
    wire = Wire(_server)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(wire.port).items():
            patch.setenv(name, value)
        for name in ("connect_timeout", "read_timeout"):  # a busy machine is no outage
            patch.setattr(S3FileSystem, name, 300)
        yield wire
    wire.cut()


@pytest.fixture
def wire(_wire: Wire) -> Iterator[Wire]:
    """The wire to the server, mended after the test."""
    _wire.reset()
    yield _wire
    _wire.reset()
    _wire.mend()


@pytest.fixture
def server(_server: Server, wire: Wire) -> Iterator[Server]:
    """The server, alive again after the test."""
    yield _server
    if not _server.is_alive:
        _server.start()


@pytest.fixture
def s3(wire: Wire) -> str:
    """A bucket of the test's own."""
    url = f"s3://bucket-{secrets.token_hex(8)}"
    make_bucket(url)
    return f"{url}/runs/a"


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """A directory on each kind of remote file system."""
    return request.getfixturevalue("s3") if request.param == "s3" else f"memory://{secrets.token_hex(8)}/runs/a"


@pytest.fixture
def store_at() -> Callable[..., RemoteStore]:
    """A store that loses no time."""

    def make(url: str, *, tries: int = 3, timeout_seconds: float = 60) -> RemoteStore:
        return RemoteStore(
            url, tries=tries, pause_seconds=0.05, part_size_bytes=5 << 20, timeout_seconds=timeout_seconds
        )

    return make


def make_bucket(url: str) -> None:
    files, path = filesystem(url)
    files.call_s3("create_bucket", Bucket=path)


def put(url: str, data: bytes) -> str:
    """Make a file without this library."""
    files, path = filesystem(url)
    files.pipe_file(path, data)
    return url


def get(url: str) -> bytes:
    files, path = filesystem(url)
    return files.cat_file(path)


def names(url: str) -> list[str]:
    """Every file at or below a place, by its name there."""
    files, path = filesystem(url)
    return sorted(name.removeprefix(path).lstrip("/") for name in files.find(path))


def unfinished(url: str) -> list[str]:
    """Uploads in the bucket that were begun, and neither completed nor given up."""
    files, path = filesystem(url)
    return [upload["Key"] for upload in files.list_multipart_uploads(path.partition("/")[0])]
