"""What lies in a directory, as findings: damaged files, links that lead nowhere, and what dead processes have left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from checkpointable.catalog.scan import Found, scan
from checkpointable.catalog.traces import is_free, rank_of, read_trace, without_run
from checkpointable.policy.names import SUFFIX, TEMPORARY_PREFIX
from checkpointable.storage import files
from checkpointable.storage.commit import is_abandoned
from checkpointable.storage.findings import Finding, Outcome, reason_of
from checkpointable.storage.format import checkpoint
from checkpointable.storage.format.shards import is_marked
from checkpointable.storage.unfinished_uploads import unfinished_uploads

_SHOWN = 3
_OLD_SECONDS = 24 * 3600
_NEXT_FIT = "The next fit that saves there deletes them; or delete them by hand."
_BY_HAND = "Delete them by hand; at a URL no fit does."
_ABORT = "Give the bucket a rule AbortIncompleteMultipartUpload, or abort them by hand."


def local_findings(directory: str) -> tuple[list[Finding], Found]:
    """What is in a local directory and below, where each checkpoint is read to its end; and the checkpoints there."""
    names = _Names(directory)  # before the checkpoints: a process that has ended saves no more of them
    free = [trace for path in names.traces if is_free(path) and (trace := read_trace(path)) is not None]
    try:
        found = scan(directory)
    except OSError as error:
        return [_unlisted(directory, reason_of(error))], Found()
    unlisted = [lost.path for lost in found.unreadable if os.path.isdir(lost.path) and not is_marked(lost.path)]
    damaged = {lost.path: lost.problem for lost in found.unreadable if lost.path not in unlisted}
    damaged |= {info.path: wrong for info in found.infos if (wrong := checkpoint.problem(info.path)) is not None}
    damaged = {path: wrong for path, wrong in damaged.items() if files.is_there(path)}  # a run deletes its old ones
    problems = {lost.path: lost.problem for lost in found.unreadable}
    return [
        *_checkpoints(found, damaged, "intact, each read to its end"),
        *(_unlisted(path, problems[path].removeprefix("cannot be listed: ")) for path in unlisted),
        *names.dangling_links(),
        *names.temporaries(),
        *_traces([trace.path for trace in without_run(free, [found])]),
    ], found


def remote_findings(url: str) -> list[Finding]:
    """What is in a remote directory and below. Of each checkpoint, only the description is read."""
    found = scan(url)
    damaged = {lost.path: lost.problem for lost in found.unreadable}
    old = [path for path in files.listed(url, below=True) if _is_temporary(path) and _age(path) > _OLD_SECONDS]
    read = "by their descriptions; Checkpoints(...).verify() reads all bytes"
    return [*_checkpoints(found, damaged, read), *_leftovers(old, "older than a day", _BY_HAND), *_uploads(url)]


def _checkpoints(found: Found, damaged: dict[str, str], read: str) -> Iterator[Finding]:
    for path, wrong in damaged.items():
        is_denied = wrong.startswith("cannot be opened")
        yield Finding(
            "file that cannot be read" if is_denied else "damaged file",
            Outcome.PROBLEM,
            f"{path}: {wrong}. latest and best pass it over.",
            "Give this process the right to read it."
            if is_denied
            else "Delete it, or put an intact copy in its place.",
        )
    intact = [info for info in found.infos if info.path not in damaged]
    others = f"; {found.others} of other libraries, not looked at" if found.others else ""
    yield Finding("checkpoints", Outcome.OK, f"{len(intact)} {read}{others}." if intact else f"none{others}.")
    if intact and all(info.weights_only for info in intact):
        yield Finding(
            "weights only",
            Outcome.WARNING,
            f"no checkpoint can be resumed from: {_named([info.path for info in intact])} hold weights alone.",
            "Save with save_weights_only=False or 'best' to be able to resume; a new run can start from these weights.",
        )


def _unlisted(path: str, why: str) -> Finding:
    return Finding(
        "directory that cannot be listed",
        Outcome.PROBLEM,
        f"{path}: {why}. Checkpoints in it are not found.",
        "Give this process the right to list it.",
    )


class _Names:
    """The names in a directory and below that are no checkpoints."""

    def __init__(self, directory: str) -> None:
        self._links: list[str] = []
        self._temporaries: list[str] = []
        self.traces: list[str] = []
        for folder, folders, names in os.walk(directory):
            paths = [os.path.join(folder, name) for name in sorted(names)]
            self._links += [path for path in paths if path.endswith(SUFFIX) and os.path.islink(path)]
            self._temporaries += [os.path.join(folder, it) for it in sorted([*folders, *names]) if _is_temporary(it)]
            self.traces += [path for path in paths if rank_of(path) is not None]
            folders[:] = sorted(name for name in folders if not _is_temporary(name))

    def dangling_links(self) -> Iterator[Finding]:
        for link in self._links:
            if os.path.islink(link) and not files.exists(link):
                yield Finding(
                    "link that leads nowhere",
                    Outcome.WARNING,
                    f"{link} links to {os.readlink(link)}, which is not there.",
                    "Delete it, or put the file back; the next save of its run makes it anew.",
                )

    def temporaries(self) -> Iterator[Finding]:
        dead, unknown = [], []
        for path in self._temporaries:
            try:
                if is_abandoned(Path(path)):
                    dead.append(path)
            except FileNotFoundError:
                pass  # its process has finished it
            except OSError as error:
                unknown.append(f"{path} ({reason_of(error)})")
        yield from _leftovers(dead, "of dead processes", _NEXT_FIT)
        if unknown:
            yield Finding(
                "temporary files",
                Outcome.UNKNOWN,
                f"whether their processes live: {_named(unknown)}.",
                "Ask their owner, or delete them by hand once no run writes there.",
            )


def _is_temporary(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(".tmp")


def _age(url: str) -> float:
    """Seconds since a file was changed; negative if unknown."""
    return time.time() - files.modified(url)


def _leftovers(paths: list[str], of: str, cure: str) -> Iterator[Finding]:
    if paths:
        yield Finding("temporary files", Outcome.WARNING, f"{len(paths)} {of}: {_named(paths)}.", cure)


def _traces(paths: list[str]) -> Iterator[Finding]:
    if paths:
        yield Finding(
            "traces without a run",
            Outcome.WARNING,
            f"{len(paths)} files of losses, of whose runs there is no checkpoint: {_named(paths)}.",
            _NEXT_FIT,
        )


def _uploads(url: str) -> Iterator[Finding]:
    what = "unfinished uploads"
    try:
        found = unfinished_uploads(url)
    except OSError as error:
        yield Finding(what, Outcome.UNKNOWN, f"they cannot be listed ({error}).", _ABORT)
        return
    if found is None:
        return
    old = [upload.url for upload in found if upload.is_abandoned]
    young = [upload.url for upload in found if not upload.is_abandoned]
    if old:
        yield Finding(
            what,
            Outcome.WARNING,
            f"{len(old)} begun more than a day ago and never completed, invisible and paid for: {_named(old)}.",
            _ABORT,
        )
    if young:
        yield Finding(
            what,
            Outcome.OK,
            f"{len(young)} begun within a day, of runs that are saving or were killed: {_named(young)}.",
        )


def _named(paths: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    paths = list(paths)
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{', '.join(paths[:_SHOWN])}{more}"
