"""Local paths and URLs: distinguishes them, and reaches the file system behind a URL through fsspec, without caches.

fsspec is imported only once a URL is given: a shell command on a local directory should not wait for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from checkpointable._errors import PolicyError, RemoteError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

Paths: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

_ONCE_A_URL = re.compile(r"^([a-z][a-z0-9+.-]+):/(?!/)")
_PROTOCOL_END = re.compile("::|://")
_LOCAL = {"file", "local"}
_S3 = {"s3", "s3a"}
_CONNECTIONS = 64  # at a time: half for the files that are read at once, half for uploads
_EXTRA = {*_S3, "gs", "gcs"}  # supported by the extra named "remote"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL that does not lead to the local file system."""
    text = os.fspath(path)
    return "://" in text and _protocol(text) not in _LOCAL


def _protocol(url: str) -> str:
    """The kind of file system, as fsspec reads it from a URL."""
    return _PROTOCOL_END.split(url, maxsplit=1)[0]


def normalize_path(path: str | os.PathLike[str]) -> str:
    """A path with ``~`` expanded and without ``file://``; a URL without a slash at its end.

    A path with ``..`` becomes one from the root: its directory need not be there, as in ``not_there/../runs``. A URL
    that was turned into a ``Path`` has lost a slash, which is put back.
    """
    text = os.fspath(path)
    if not isinstance(path, str):
        text = _ONCE_A_URL.sub(r"\1://", text)
    if is_remote(text):
        return text if text.endswith("://") else text.rstrip("/")
    local = _without_protocol(text) if "://" in text else os.path.expanduser(text)
    return os.path.realpath(local) if os.pardir in Path(local).parts else local


def _without_protocol(url: str) -> str:
    from fsspec.implementations.local import LocalFileSystem

    return str(LocalFileSystem._strip_protocol(url))


def normalize_paths(paths: Paths) -> list[str]:
    """One path, or several, as ``normalize_path`` gives them; a ``PolicyError`` if there is none, or an empty one."""
    given: list[Any] = [paths]
    if isinstance(paths, Iterable) and not isinstance(paths, (str, bytes)):
        given = list(paths)
    wrong = [path for path in given if not isinstance(path, (str, os.PathLike)) or path == ""]
    if wrong or not given:
        what = repr(wrong[0]) if wrong else "no path"
        raise PolicyError(f"cannot look at {what}: pass the path or URL of a directory or a file, or several of them")
    return [normalize_path(path) for path in given]


def absolute(path: str | os.PathLike[str]) -> str:
    """A path from the root, where the working directory is the present one; a URL as ``normalize_path`` gives it."""
    place = normalize_path(path)
    return place if is_remote(place) else os.path.abspath(place)


def parent(path: str) -> str:
    """The directory that a file is in."""
    return path.rpartition("/")[0] if is_remote(path) else os.path.dirname(path)


def join(directory: str, name: str) -> str:
    """The path of a file, by its name in a directory (which may hold ``/``)."""
    return f"{directory}/{name}" if is_remote(directory) else os.path.join(directory, name)


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system behind a URL, with its cached listings dropped, and the path in it.

    fsspec keeps one instance for each process and set of options: calling again is cheap, and safe after a fork.
    Without the package of a file system, ``RemoteError`` says what to install.
    """
    from fsspec.core import url_to_fs

    protocol = _protocol(url)
    try:
        with reaching(url):
            files, path = url_to_fs(url, **_options(protocol))
            files.invalidate_cache(path)
    except ImportError as error:
        cure = "pip install 'checkpointable[remote]'" if protocol in _EXTRA else "Install that package"
        raise RemoteError(f"cannot use {url}: {reason(error)}. {cure}, or choose another kind of path.") from error
    return files, path


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn exceptions raised inside a file system's package into ``RemoteError``. Wrap only calls into that package.

    Each package has its own exceptions, many of which are no ``OSError``, and passes on those of its HTTP client. So
    the origin decides, not the class. An exception raised in our own code, such as a call with a wrong argument, is not
    changed. A missing file, a taken name and a missing package are raised as they are, denied access as
    ``PermissionError``.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, ImportError):
        raise
    except Exception as error:
        if _is_ours(error):
            raise
        kind = PermissionError if isinstance(error, PermissionError) else RemoteError
        raise kind(f"cannot reach {url}: {reason(error)}. {advice(error)}") from error


def advice(error: BaseException) -> str:
    """What the user can do about an error of a file system's package."""
    if isinstance(error, ValueError):
        return "Correct the path; allowed are directories and URLs such as s3://bucket/run."
    if "credentials" in f"{type(error).__name__} {error}".lower():
        return (
            "Give this process credentials where the file system's package looks for them; for S3 AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or a profile."
        )
    if isinstance(error, PermissionError):
        return "Give its credentials the right to list, read, write and delete there, or choose another path."
    if isinstance(error, FileNotFoundError):
        return "Make the bucket (it is not made here), or correct the path."
    return (
        "Check that the path is right, and can be reached from this machine (network, proxy; for S3 AWS_ENDPOINT_URL"
        " and AWS_REGION)."
    )


def reason(error: BaseException) -> str:
    """The message of an exception without a full stop; its class if it has no message."""
    return str(error).strip().rstrip(".") or type(error).__name__


def _is_ours(error: Exception) -> bool:
    *_, (raised_in, _) = traceback.walk_tb(error.__traceback__)
    return str(raised_in.f_globals.get("__name__")).startswith("checkpointable.")


def _options(protocol: str) -> dict[str, Any]:
    """Options for S3: listings are not cached, botocore tries once, and more than its ten requests run at a time.

    Between its tries, botocore draws from Python's ``random``, which training uses too. The retries of s3fs do not.
    """
    if protocol not in _S3:
        return {}
    from fsspec.config import conf

    users = conf.get(protocol, {}).get("config_kwargs", {})
    ours = {"retries": {"max_attempts": 0}, "max_pool_connections": _CONNECTIONS}
    return {"use_listings_cache": False, "config_kwargs": {**ours, **users}}
