"""Whether a directory can be relied on: what its file system does, and what lies there."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from checkpointable._errors import PolicyError
from checkpointable.catalog.leftovers import local_findings, remote_findings
from checkpointable.storage import mounts, probes
from checkpointable.storage.files import kind
from checkpointable.storage.findings import Finding, Findings, Outcome, reason_of
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.paths import filesystem, is_remote, normalize_path, parent, reaching
from checkpointable.storage.remote_probes import ANSWER_SECONDS, RemoteProbe, UnansweredError, apart

_LISTING_ANSWERS = 20  # that a look at all checkpoints of a store waits for


def doctor(dirpath: str | os.PathLike[str]) -> Findings:
    """Examine a directory of checkpoints, or one that is to become one, on the file system that it is on.

    It tries out what saving and resuming stand on, such as renames, links, locks, syncs and free room, and looks at
    what lies there: damaged files, links that lead nowhere, leftovers of dead processes. All local checkpoints are read
    to their end. It writes only in a temporary folder in that directory (at a URL: one file of about 5 MB), which is
    deleted at the end, also after Ctrl-C, and deletes nothing else. A directory that does not exist is not made: the
    nearest one above it is examined.

    Args:
        dirpath: A directory, as a local path or a URL.

    Returns:
        The findings, each with ``what``, ``outcome`` (``"ok"``, ``"warning"``, ``"problem"`` or ``"unknown"``),
        ``detail`` and ``cure``. ``print`` shows a table. ``problems`` has those because of which saving or resuming
        fails, ``to_dicts()`` all as dictionaries. A store that does not answer is a finding, after half a minute.

    Raises:
        PolicyError: If ``dirpath`` is no path, or that of a file.
        RemoteError: If no file system is known for the URL, or its package is missing.
    """
    if not isinstance(dirpath, (str, os.PathLike)) or not str(dirpath) or "\0" in str(dirpath):
        raise PolicyError(f"cannot examine dirpath={dirpath!r}: must be a directory or a URL.")
    place = normalize_path(dirpath)
    return Findings(place, _remote(place, ANSWER_SECONDS) if is_remote(place) else _local(place))


def _local(place: str) -> list[Finding]:
    if is_marked(place) or os.path.isfile(place):
        raise PolicyError(f"cannot examine {place}: it is a checkpoint or another file. Pass the directory it is in.")
    try:
        nearest = _nearest_local(place)
    except OSError as error:
        return [_unreachable(place, reason_of(error))]
    if not nearest.is_dir():
        return [_part_is_no_directory(nearest)]
    if nearest != Path(place):
        return [_missing(str(nearest)), *mounts.findings(nearest, None), *probes.probe(nearest)]
    there, checkpoints = local_findings(place)
    newest = checkpoints.infos[-1].size if checkpoints.infos else None
    return [*mounts.findings(nearest, newest), *probes.probe(nearest), *there]


def _nearest_local(place: str) -> Path:
    """The first that is there of a path and the ones above it. What cannot be looked at raises ``OSError``."""
    for path in (Path(place), *Path(os.path.abspath(place)).parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)  # as where a drive is gone


def _remote(url: str, answer_seconds: float) -> list[Finding]:
    filesystem(url)  # raises what to install, or that there is no such kind of URL
    try:
        nearest = RemoteProbe(url, answer_seconds).ask(lambda: _nearest_remote(url))
    except (UnansweredError, OSError) as error:
        return [Finding("answer", Outcome.PROBLEM, *apart(error))]
    probe = RemoteProbe(nearest, answer_seconds)
    found = [*([_missing(nearest)] if nearest != url else []), *probe.findings()]
    found.append(Finding("free room", Outcome.UNKNOWN, "remote file systems do not tell it, nor a quota."))
    if nearest != url or not probe.is_answering:
        return found
    try:
        return [*found, *probe.ask(lambda: remote_findings(url), _LISTING_ANSWERS)]
    except (UnansweredError, OSError) as error:
        return [*found, Finding("checkpoints", Outcome.UNKNOWN, *apart(error))]


def _nearest_remote(url: str) -> str:
    """The directory to try things out in: on object stores the URL, elsewhere the nearest one that exists."""
    with contextlib.suppress(PermissionError):  # what is denied is found out later
        if kind(url) == "file":
            raise PolicyError(f"cannot examine {url}: it is a file. Pass the directory it is in.")
    while True:
        files, path = filesystem(url)
        with reaching(url):
            if files.async_impl or url.endswith("://") or files.isdir(path):
                return url
        above = parent(url)
        url = f"{above}/" if above.endswith(":/") else above


def _missing(nearest: str) -> Finding:
    return Finding(
        "directory", Outcome.OK, f"it does not exist. A fit makes it when it starts; {nearest} was examined instead."
    )


def _unreachable(place: str, why: str) -> Finding:
    return Finding(
        "directory",
        Outcome.PROBLEM,
        f"whether {place} is there cannot be seen: {why}.",
        "Give this process the right to reach it, or choose another dirpath.",
    )


def _part_is_no_directory(part: Path) -> Finding:
    kind_of_part = "a link that leads nowhere" if part.is_symlink() else "a file"
    return Finding(
        "directory",
        Outcome.PROBLEM,
        f"{part} is {kind_of_part}, and no directory: no checkpoint can be saved there.",
        "Choose another dirpath.",
    )
