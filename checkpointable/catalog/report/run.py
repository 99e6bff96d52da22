"""What a report tells of one run: its files, their histories, and what is wrong with any of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from checkpointable._errors import CheckpointFileError
from checkpointable.catalog import select, traces
from checkpointable.catalog.history import newest_history, with_ends
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.report.checks import Checks
from checkpointable.catalog.scan import Found, Unreadable
from checkpointable.policy.history import History
from checkpointable.policy.lineage import Lineage
from checkpointable.storage.paths import is_remote, parent


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        run_id: Its id.
        name: The directory of its newest file, relative to what all runs of the report have in common.
        infos: Its files, newest last. There is at least one.
        histories: What files tell of the run, the newest of each attempt, oldest first, with the lineage of the file.
        problems: What is wrong with damaged files, by path.
        checked: The paths of the files of which all bytes were read.
        unreadable: Damaged files in its directories, which do not tell their run.
        copies: Where else a file is, by path.
    """

    run_id: str
    name: str
    infos: Sequence[CheckpointInfo]
    histories: Sequence[tuple[Lineage, History]] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    checked: frozenset[str] = frozenset()
    unreadable: Sequence[Unreadable] = ()
    copies: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def newest(self) -> CheckpointInfo:
        """The newest file, intact or not."""
        return self.infos[-1]

    @property
    def last(self) -> CheckpointInfo | None:
        """The newest file that is not damaged and that can be resumed from."""
        usable = [info for info in self.infos if info.path not in self.problems and not info.weights_only]
        return usable[-1] if usable else None

    @property
    def best(self) -> CheckpointInfo | None:
        """The file with the best score of those that are not damaged."""
        scored = [info for info in select.by_score(self.infos, None) if info.path not in self.problems]
        return scored[0] if scored else None

    @property
    def history(self) -> History | None:
        """What the newest file with a history tells."""
        return self.histories[-1][1] if self.histories else None

    @property
    def monitor(self) -> tuple[str | None, str | None]:
        """The quantity that decides what is best, and its mode."""
        if self.history is not None and self.history.monitor is not None:
            return self.history.monitor, self.history.mode
        return next(
            ((info.monitor, info.mode) for info in reversed(self.infos) if info.score is not None), (None, None)
        )

    @property
    def folder(self) -> str:
        """The directory that holds all its files, at whatever depth, and the damaged ones beside them."""
        folders = [parent(path) for path in (*(it.path for it in self.infos), *(it.path for it in self.unreadable))]
        if len(set(folders)) == 1:
            return folders[0]
        return folders[0] if any(map(is_remote, folders)) else os.path.commonpath(map(os.path.abspath, folders))

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(info.size for info in self.infos)


def runs_of(found: Found, checks: Checks) -> tuple[list[Run], list[Unreadable]]:
    """The runs of the files that were found, the newest first, and the damaged files that can be of several."""
    ids = list(dict.fromkeys(info.run_id for info in reversed(found.infos)))
    grouped = {run_id: [info for info in found.infos if info.run_id == run_id] for run_id in ids}
    names, lost = _names(grouped), _by_run(grouped, found.unreadable)
    runs = [
        _run(run_id, infos, name=names[run_id], unreadable=lost[run_id], found=found, checks=checks)
        for run_id, infos in grouped.items()
    ]
    placed = {it.path for run in runs for it in run.unreadable}
    return runs, [it for it in found.unreadable if it.path not in placed]


def _run(
    run_id: str, infos: list[CheckpointInfo], *, name: str, unreadable: list[Unreadable], found: Found, checks: Checks
) -> Run:
    problems = {info.path: why for info in infos if (why := checks.problems.get(info.path)) is not None}
    histories = []
    ends = traces.ends_in(traces.of_run(run_id, {parent(info.path) for info in infos if not is_remote(info.path)}))
    for attempt in dict.fromkeys(info.lineage.attempt for info in infos):
        written = [info for info in infos if info.lineage.attempt == attempt and info.path not in problems]
        told = newest_history(written)
        problems |= {path: _in_words(path, error) for path, error in told.problems.items()}
        if told.info is not None and told.history is not None:
            histories.append((told.info.lineage, with_ends(told.history, ends)))
    return Run(
        run_id=run_id,
        name=name,
        infos=infos,
        histories=histories,
        problems=problems,
        checked=frozenset(checks.problems),
        unreadable=unreadable,
        copies={path: [copy.path for copy in copies] for path, copies in found.copies.items()},
    )


def _in_words(path: str, error: CheckpointFileError | FileNotFoundError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it was deleted while this report was made"
    return str(error).removeprefix(f"{path} ").rstrip(".")


def _names(grouped: Mapping[str, Sequence[CheckpointInfo]]) -> dict[str, str]:
    """A name for each run: the part of its directory that tells it from the others, and its id where that is none."""
    parts = {run_id: _folders(infos[-1].path) for run_id, infos in grouped.items()}
    if len(parts) == 1:
        return {run_id: "/".join(_without_usual_end(folders)[-2:]) or run_id for run_id, folders in parts.items()}
    ahead = _shared(list(parts.values()))
    behind = _shared([folders[ahead:][::-1] for folders in parts.values()])
    names = {run_id: "/".join(folders[ahead : len(folders) - behind]) for run_id, folders in parts.items()}
    taken = Counter(names.values())
    return {run_id: name if name and taken[name] == 1 else f"{name} {run_id}".strip() for run_id, name in names.items()}


def _folders(path: str) -> list[str]:
    return [it for it in parent(path).replace(os.sep, "/").split("/") if it]


def _without_usual_end(folders: list[str]) -> list[str]:
    return folders[:-1] if folders[-1:] == ["checkpoints"] else folders


def _shared(lists: Sequence[Sequence[str]]) -> int:
    """How many items all lists begin with."""
    shared = 0
    for items in zip(*lists, strict=False):
        if len(set(items)) > 1:
            break
        shared += 1
    return shared


def _by_run(
    grouped: Mapping[str, Sequence[CheckpointInfo]], unreadable: Sequence[Unreadable]
) -> dict[str, list[Unreadable]]:
    """The damaged files in directories in which there is one run alone."""
    homes: dict[str, set[str]] = {}
    for run_id, infos in grouped.items():
        for info in infos:
            homes.setdefault(parent(info.path), set()).add(run_id)
    placed: dict[str, list[Unreadable]] = {run_id: [] for run_id in grouped}
    for lost in unreadable:
        owners = homes.get(parent(lost.path), set(grouped) if len(grouped) == 1 else set())
        if len(owners) == 1:
            placed[next(iter(owners))].append(lost)
    return placed


def shown_name(path: str, roots: Sequence[str]) -> str:
    """A path as a report shows it: relative to the one place that was looked at, else whole."""
    if len(roots) == 1 and path.startswith(roots[0].rstrip("/") + "/"):
        return path[len(roots[0].rstrip("/")) + 1 :]
    return path if is_remote(path) else os.path.normpath(path)
