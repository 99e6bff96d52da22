"""The files that a run keeps, as an immutable value: each save that succeeds makes the next one."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.reasons import PERIODIC, Reason
from checkpointable.policy.retention import Retention, SavedFile, newest_to_resume


@dataclass(frozen=True, kw_only=True)
class KeptFiles:
    """The files that a run wrote and may delete, oldest first, and the rules that keep them.

    Files that are kept for ever are left out once they are saved: they are never deleted.
    """

    retention: Retention
    files: tuple[SavedFile, ...] = ()

    @classmethod
    def found(cls, options: Options, infos: Iterable[CheckpointInfo], position: Position) -> KeptFiles:
        """What the run kept at ``position``, by the files on disk. Later files are left out, so they are never deleted.

        A file that was best by another monitor counts only as one of the newest; if it is not, the user may delete it.
        """
        past = [info for info in infos if Reason.MANUAL not in info.reasons and info.at <= position]
        past.sort(key=attrgetter("at"))
        files = tuple(
            SavedFile(
                path=info.path,
                position=info.at,
                reasons=frozenset(reason for reason in Reason if reason in info.reasons),
                weights_only=info.weights_only,
                score=info.score if (info.monitor, info.mode) == (options.monitor, options.mode) else None,
            )
            for info in past
        )
        found = cls(retention=options.retention, files=files)
        of_other_monitor = {info.path for info in past if info.monitor not in (None, options.monitor)}
        return found.without(of_other_monitor - found.kept)

    @cached_property
    def kept(self) -> frozenset[str]:
        """The files that stay."""
        return frozenset(file.path for file in self.retention.kept(self.files))

    @property
    def outdated(self) -> set[str]:
        """The files that no rule keeps any more."""
        return {file.path for file in self.files} - self.kept

    @property
    def scores(self) -> dict[str, float]:
        """The best files and their scores, best first."""
        return {it.path: it.score for it in self.retention.best.kept(self.files) if it.score is not None}

    @property
    def best_path(self) -> str:
        """The best file; ``""`` if there is none."""
        return next(iter(self.scores), "")

    @property
    def last_path(self) -> str:
        """The newest file to resume from; the newest of all if each holds weights only; ``""`` if there is none."""
        return "".join(file.path for file in newest_to_resume(self.files))

    @property
    def last_position(self) -> Position | None:
        """The position of that file."""
        return next((file.position for file in newest_to_resume(self.files)), None)

    @property
    def last_score(self) -> float | None:
        """The score at that position; ``None`` if the weights there are not among the best."""
        last = self.last_position
        here = {file.path for file in self.files if file.position == last}
        return next((score for path, score in self.scores.items() if path in here), None)

    @property
    def of_weights(self) -> set[str]:
        """The files that hold weights alone."""
        return {file.path for file in self.files if file.weights_only}

    def reduced(self, path: str) -> KeptFiles:
        """With this file holding its weights alone."""
        return replace(
            self, files=tuple(replace(it, weights_only=it.weights_only or it.path == path) for it in self.files)
        )

    def add(self, file: SavedFile) -> KeptFiles:
        """With this file as the newest one."""
        return replace(self, files=(*(it for it in self.files if it.path != file.path), file))

    def without(self, paths: Iterable[str]) -> KeptFiles:
        """Without these files."""
        gone = set(paths)
        return replace(self, files=tuple(file for file in self.files if file.path not in gone))

    def without_outdated(self, *, but: Set[str] = frozenset()) -> KeptFiles:
        """Without the files that no rule keeps, and without those that stay for ever: a run can have thousands of them.

        ``but`` are outdated files that stay in the list, as they are still to be deleted.
        """
        stay = {file.path for file in self.retention.temporary.kept(self.files)} | but
        return replace(self, files=tuple(file for file in self.files if file.path in stay))

    def replaced_by(self, file: SavedFile) -> set[str]:
        """The files that this one makes outdated, so that it may take one of their names."""
        return self.add(file).outdated

    def admits(self, score: float, *, in_progress: float | None = None) -> bool:
        """Whether weights with this score belong to the best, beside the score of a save that is in progress."""
        others = [score for score in (*self.scores.values(), in_progress) if score is not None]
        return self.retention.best.admits(score, others)

    def path_at(self, position: Position, reasons: Set[Reason], *, weights_only: bool) -> str | None:
        """The newest file that holds as much, if it is a save of this position that serves these reasons."""
        newest = next((file for file in reversed(self.files) if file.weights_only <= weights_only), None)
        if newest is None or newest.position != position:
            return None
        lacks_score = Reason.BEST in reasons and newest.path not in self.scores
        may_be_deleted = Reason.KEPT_EPOCH in reasons and Reason.KEPT_EPOCH not in newest.reasons
        is_periodic = Reason.EPOCH in reasons and not newest.reasons.isdisjoint(PERIODIC)
        return None if lacks_score or may_be_deleted or is_periodic else newest.path
