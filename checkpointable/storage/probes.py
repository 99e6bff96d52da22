"""Tries out, in a folder of its own, what a file system does with files, names, links and locks.

A probe is a function that gets an empty folder. It returns what it has seen, and raises ``OSError`` where the file
system refuses, or does something else than it should. The table says what that means, and what to do about it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from checkpointable.storage.commit_directory import temporary_directory_in
from checkpointable.storage.findings import Finding, Outcome, reason_of
from checkpointable.storage.probes_of_data import direct_writes, files, recorder, reflinks, sync
from checkpointable.storage.probes_of_locks import locks
from checkpointable.storage.probes_of_names import case, hard_links, rename, symbolic_links, sync_names


@dataclass(frozen=True)
class Probe:
    """A question to a file system.

    Attributes:
        what: Its subject.
        probe: Finds out. It gets an empty folder, and returns what it has seen, or the finding.
        refused: The outcome if it raises ``OSError``.
        means: What that means for checkpoints.
        cure: What to do about it.
    """

    what: str
    probe: Callable[[Path], str | Finding]
    refused: Outcome
    means: str
    cure: str = ""

    def finding(self, folder: Path) -> Finding:
        """The answer, from a folder of its own below another."""
        try:
            own = folder / self.what.replace(" ", "_")
            own.mkdir()
            seen = self.probe(own)
            return Finding(self.what, Outcome.OK, seen) if isinstance(seen, str) else seen
        except OSError as error:
            return Finding(self.what, self.refused, f"{reason_of(error)}: {self.means}.", self.cure)


def probe(directory: Path) -> list[Finding]:
    """Try out everything in a temporary folder in a directory, which is deleted at the end, whatever happens."""
    made: Path | None = None
    try:
        with temporary_directory_in(directory) as made:
            findings = [question.finding(made) for question in PROBES]
    except OSError as error:
        return [_cannot_write(directory, error)]
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)  # where Ctrl-C has ended the deletion above
    return [*findings, *([_cannot_delete(made)] if os.path.lexists(made) else [])]


def _cannot_write(directory: Path, error: OSError) -> Finding:
    return Finding(
        "writing",
        Outcome.PROBLEM,
        f"nothing can be made in {directory} ({reason_of(error)}): no checkpoint can be saved there.",
        "Choose a dirpath that this process can write, or free space there.",
    )


def _cannot_delete(made: Path) -> Finding:
    return Finding(
        "deleting",
        Outcome.PROBLEM,
        f"{made}, made to try this out, could not be deleted: outdated checkpoints stay, and fill the disk.",
        "Give this process the right to delete in that directory, and delete that folder by hand.",
    )


PROBES = [
    Probe(
        "files",
        files,
        Outcome.PROBLEM,
        "checkpoints cannot be saved there",
        "Choose another dirpath, or free space there.",
    ),
    Probe(
        "rename over a file",
        rename,
        Outcome.PROBLEM,
        "a kill or a reader may meet half a checkpoint",
        "Choose a dirpath on another file system.",
    ),
    Probe(
        "hard links",
        hard_links,
        Outcome.WARNING,
        "a name is looked up before it is taken, so of two runs that take it at the same moment, one may lose its file",
        "Give each run a dirpath of its own.",
    ),
    Probe(
        "symbolic links",
        symbolic_links,
        Outcome.WARNING,
        "last.ckpt and best.ckpt become copies, which take the room of two more checkpoints",
        "Keep that room free, or choose another file system.",
    ),
    Probe(
        "locks",
        locks,
        Outcome.WARNING,
        "what killed processes leave is told by its age, and is deleted a day later",
        "Nothing has to be done; keep that room free.",
    ),
    Probe(
        "sync of a file",
        sync,
        Outcome.PROBLEM,
        "no checkpoint can be made durable",
        "Choose a dirpath on another file system.",
    ),
    Probe(
        "sync of names",
        sync_names,
        Outcome.WARNING,
        "everything is saved, but a power cut may lose the newest files",
        "If that matters, choose another dirpath.",
    ),
    Probe("upper and lower case", case, Outcome.UNKNOWN, "not found out"),
    Probe(
        "direct writes",
        direct_writes,
        Outcome.WARNING,
        "checkpoints are written and verified through the page cache, and not on the disk itself",
        "Nothing has to be done; a disk of this machine would allow it.",
    ),
    Probe("reflinks", reflinks, Outcome.OK, "copies of a checkpoint take their own room; nothing depends on it"),
    Probe(
        "file of the recorder",
        recorder,
        Outcome.WARNING,
        "losses are not recorded, so a resume cannot prove itself",
        "Choose another dirpath, or free space there.",
    ),
]
