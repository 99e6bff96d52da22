"""The uploads in parts that were begun on S3 and neither completed nor given up: invisible, stored, and paid for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from checkpointable.storage.paths import filesystem, reaching


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


def unfinished_uploads(url: str) -> list[UnfinishedUpload] | None:
    """Those in a remote directory and below, at most the first 1000; ``None`` where the store has no list of them.

    Raises:
        RemoteError: If the store does not answer, or does not offer the list.
        PermissionError: If it may not be seen.
    """
    files, path = filesystem(url)
    if not hasattr(files, "call_s3"):
        return None
    bucket, _, prefix = path.partition("/")
    with reaching(url):
        found = files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
        return [
            UnfinishedUpload(f"s3://{bucket}/{it['Key']}", it["UploadId"], time.time() - it["Initiated"].timestamp())
            for it in found.get("Uploads", [])
        ]
