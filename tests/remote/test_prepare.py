"""A URL that cannot be saved to is refused in the first second, with what to do."""

from __future__ import annotations

import importlib
import secrets
import sys

import pytest
from remote.conftest import put
from remote.contents import checkpoint
from remote.server import Refusing, environment

from checkpointable import CheckpointableError, RemoteError, SaveError, latest
from checkpointable.storage.paths import filesystem
from checkpointable.storage.remote import RemoteStore


@pytest.fixture
def another_environment(s3):
    """Have clients read the environment anew, in the test and after it."""
    forget = type(filesystem(s3)[0]).clear_instance_cache
    yield forget
    forget()


def refused(url: str) -> str:
    with pytest.raises(SaveError) as caught:
        RemoteStore(url).prepare(below=False)
    assert isinstance(caught.value, CheckpointableError)
    assert str(caught.value).startswith(f"cannot save checkpoints in {url}: ")
    return str(caught.value)


def test_prepare_without_the_bucket_says_to_make_it_and_does_not(s3):
    bucket = f"s3://bucket-{secrets.token_hex(8)}"
    assert "bucket does not exist. Make the bucket (it is not made here), or correct the path." in refused(
        f"{bucket}/a"
    )
    assert not filesystem(bucket)[0].exists(bucket)


def test_prepare_without_an_answer_says_what_to_look_at(s3, wire):
    wire.cut()
    assert "Could not connect to the endpoint URL" in refused(s3)
    assert "can be reached from this machine (network, proxy; for S3 AWS_ENDPOINT_URL and AWS_REGION)" in refused(s3)


def test_prepare_without_permission_says_which_is_needed(s3, another_environment, monkeypatch):
    refusing = Refusing()
    for name, value in environment(refusing.port).items():
        monkeypatch.setenv(name, value)
    another_environment()
    assert "Give its credentials the right to list, read, write and delete there" in refused(s3)
    refusing.close()


def test_prepare_without_credentials_says_where_to_put_them(s3, another_environment, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    another_environment()
    assert "Unable to locate credentials. Give this process credentials where" in refused(s3)
    with pytest.raises(RemoteError, match=r"Unable to locate credentials\. .* AWS_SECRET_ACCESS_KEY, or a profile"):
        latest(s3)


@pytest.mark.parametrize(
    ("protocol", "package", "cure"),
    [
        ("s3", "s3fs", "Install s3fs to access S3. pip install 'checkpointable[remote]'"),
        (
            "gs",
            "gcsfs",
            "Please install gcsfs to access Google Storage. pip install 'checkpointable[remote]', or choose",
        ),
        ("abfs", "adlfs", "Install that package, or choose another kind of path."),
    ],
)
def test_prepare_without_the_package_says_what_to_install(monkeypatch, protocol, package, cure):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, protocol, raising=False)
    url = f"{protocol}://bucket/runs"
    message = refused(url)
    assert cure in message
    assert package in message
    with pytest.raises(RemoteError, match=r"nstall"):
        latest(url)


def test_prepare_with_an_unknown_kind_of_url_says_what_is_allowed():
    message = refused("nosuch://bucket/runs")
    assert "Protocol not known: nosuch. Correct the path; allowed are directories and URLs such as s3://" in message


def test_prepare_with_a_name_that_no_bucket_can_have_says_so(s3):
    assert "Invalid bucket name" in refused("s3://no bucket/runs")


def test_prepared_place_is_found_empty(place):
    RemoteStore(place).prepare(below=False)
    assert latest(place) is None
    put(f"{place}/a.ckpt", checkpoint())
    assert latest(place) == f"{place}/a.ckpt"
