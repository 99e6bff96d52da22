"""What is a URL, and which failures are the file system's."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath

import pytest
from fsspec.core import url_to_fs

from checkpointable import RemoteError
from checkpointable.storage.paths import is_remote, normalize_path, parent, reaching
from checkpointable.storage.upload import _parts_etag


@pytest.mark.parametrize(
    ("path", "remote", "expected"),
    [
        ("s3://bucket/runs/", True, "s3://bucket/runs"),
        ("memory://", True, "memory://"),
        ("simplecache::s3://bucket/a", True, "simplecache::s3://bucket/a"),
        ("runs/a", False, "runs/a"),
        ("/runs/a::b", False, "/runs/a::b"),
        ("file:///runs/a", False, "/runs/a"),
        ("local:///runs/a", False, "/runs/a"),
        (PurePosixPath("/runs/a"), False, "/runs/a"),
        ("s3:/a", False, "s3:/a"),
    ],
)
def test_path_is_normalized_and_a_url_or_not(path, remote, expected):
    assert is_remote(path) is remote
    assert normalize_path(path) == expected


def test_url_that_was_made_a_path_gets_its_slash_back():
    assert normalize_path(PurePosixPath("s3://bucket/runs")) == "s3://bucket/runs"


def test_parent_of_a_url_is_a_url():
    assert parent("s3://bucket/runs/a.ckpt") == "s3://bucket/runs"
    assert parent("/runs/a.ckpt") == "/runs"


def test_error_in_the_package_is_the_file_systems_whatever_its_class():
    with pytest.raises(RemoteError, match=r"cannot reach s3://bucket: .*") as caught, reaching("s3://bucket"):
        url_to_fs(3)
    assert isinstance(caught.value.__cause__, (TypeError, AttributeError, ValueError))


def test_error_in_our_own_code_stays_as_it_is():
    with pytest.raises(AttributeError, match="pieces"), reaching("s3://bucket"):
        _parts_etag(None, 1)


def test_error_without_words_is_named_by_its_class():
    with (
        pytest.raises(RemoteError, match=r"cannot reach s3://bucket: TimeoutError\. Check that"),
        reaching("s3://bucket"),
    ):
        asyncio.run(asyncio.wait_for(asyncio.sleep(900), 0.01))
