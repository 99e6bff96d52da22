"""Writes a report: one HTML file that shows runs to people who have neither the files nor this library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from checkpointable._errors import CheckpointFileError, PolicyError
from checkpointable.catalog.report.checks import check
from checkpointable.catalog.report.page import page
from checkpointable.catalog.report.run import runs_of
from checkpointable.catalog.scan import Found, scan
from checkpointable.catalog.unusable import why_nothing
from checkpointable.catalog.words import counted
from checkpointable.storage import commit
from checkpointable.storage.paths import Paths, is_remote, normalize_path, normalize_paths

SUFFIXES = (".html", ".htm")


def write_report(paths: Paths, target: str | os.PathLike[str], *, verify: bool | None = None) -> None:
    """Write a page that shows the runs at a path: curves, sessions, kills and resumes, files, cost of saving.

    It is one file, opens in any browser, loads nothing, and holds no script. Each run is drawn from the history in its
    newest files. Files without one are shown by their metadata.

    Args:
        paths: As for ``latest``: a directory, which is searched with its subdirectories, a file, a URL, or several.
        target: A local path that ends in ``.html``. A page of that name is replaced, in one step. Missing directories
            are made.
        verify: Whether all bytes of all files are read to find damage; ``None``: if the files are local, and have 2 GiB
            or less in all. The page says what was done.

    Raises:
        PolicyError: If the target is a URL, a directory, or does not end in ``.html`` or ``.htm``.
        CheckpointFileError: If there is no checkpoint, or if a path is a file that is not one of this library.
        OSError: If the directory cannot be listed, or the page cannot be written.
        RemoteError: If a remote file system does not answer.
    """
    place = _checked_target(target)
    roots = normalize_paths(paths)
    found = scan(paths)
    if not found.infos and not found.unreadable:
        raise CheckpointFileError(
            f"cannot write a report to {place}: {why_nothing(paths, found)}. Pass a directory with checkpoints."
        )
    checks = check(found.infos, verify=verify)
    runs, lost = runs_of(found, checks)
    text = page(runs, lost, roots=roots, checks=checks, notes=list(_notes(found)))
    commit.make(place.parent)
    with commit.temporary_in(place.parent) as temporary:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, place)


def _notes(found: Found) -> Iterator[str]:
    yield from (f"Not all is shown: {why}" for why in found.unreached)
    if found.others:
        yield f"{counted(found.others, 'checkpoint')} of other libraries there: not shown."


def _checked_target(target: str | os.PathLike[str]) -> Path:
    place = Path(normalize_path(target)) if not is_remote(target) else None
    if place is None:
        raise PolicyError(f"cannot write a report to {target}: it is a URL. Write it to a local path, and upload it.")
    if place.suffix.lower() not in SUFFIXES:
        raise PolicyError(f"cannot write a report to {place}: pass a path that ends in .html, such as {place}.html.")
    if place.is_dir():
        raise PolicyError(f"cannot write a report to {place}: it is a directory. Pass the path of a file in it.")
    return place
