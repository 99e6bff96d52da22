"""The uploads in parts that were begun on S3 and neither completed nor given up: invisible, stored, and paid for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from checkpointable.policy.names import SUFFIX
from checkpointable.storage.paths import filesystem
from checkpointable.storage.waiting import ask

ABANDONED_SECONDS = 24 * 3600  # younger ones can belong to a process that is still writing


@dataclass(frozen=True)
class UnfinishedUpload:
    """One of them.

    Attributes:
        url: The file that it would have become.
        upload_id: What S3 calls it.
        age_seconds: Since it was begun.
    """

    url: str
    upload_id: str
    age_seconds: float

    @property
    def is_abandoned(self) -> bool:
        """Whether it is so old that no process can be writing it."""
        return self.age_seconds > ABANDONED_SECONDS


def unfinished_uploads(url: str) -> list[UnfinishedUpload] | None:
    """Those in a remote directory and below; ``None`` where the store has no list of them.

    Raises:
        RemoteError: If the store does not answer, or does not offer the list.
        PermissionError: If it may not be seen.
    """
    files, path = filesystem(url)
    if not hasattr(files, "call_s3"):
        return None
    bucket, _, prefix = path.partition("/")
    return [
        UnfinishedUpload(f"s3://{bucket}/{it['Key']}", it["UploadId"], time.time() - it["Initiated"].timestamp())
        for it in _listed(files, url, {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""})
    ]


def abort_abandoned(url: str) -> None:
    """Abort the uploads of checkpoints in a remote directory and below that killed processes have left.

    Only S3 lists them. A store that does not, or that refuses it, removes them by its own rules.
    """
    with contextlib.suppress(OSError):
        for upload in unfinished_uploads(url) or ():
            if upload.is_abandoned and upload.url.endswith(SUFFIX):
                files, path = filesystem(upload.url)
                bucket, _, key = path.partition("/")
                which = {"Bucket": bucket, "Key": key, "UploadId": upload.upload_id}
                ask(url, partial(files.call_s3, "abort_multipart_upload", **which))


def _listed(files: Any, url: str, where: dict[str, str]) -> Iterator[Any]:
    """S3's entries, a page of a thousand at a time."""
    while True:
        page = ask(url, partial(files.call_s3, "list_multipart_uploads", **where))
        yield from page.get("Uploads", [])
        if not page.get("IsTruncated"):
            return
        where = {**where, "KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
