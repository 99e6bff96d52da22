"""What a run keeps: the best files, the newest, and those it wrote. A value: each save that succeeds gives the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass, replace

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.policy import names
from checkpointable.policy.options import Options
from checkpointable.policy.position import Position
from checkpointable.policy.retention import Best, Newest

_NEW = "\0the file about to be written"


@dataclass(frozen=True, kw_only=True)
class Order:
    """One save: why, of what, and what its name may say.

    Attributes:
        reasons: Every condition that came due; one file serves them all.
        position: Where the run stands.
        metrics: Logged scalars, for the name and the metadata.
        score: The monitored value on exactly these weights, if it makes this file one of the best.
    """

    reasons: Set[str]
    position: Position
    metrics: Mapping[str, float]
    score: float | None = None


def base_name(options: Options, order: Order) -> str:
    """The name of the file that is ordered, without version and suffix.

    Raises:
        PolicyError: If a template does not fit what was logged.
    """
    template = options.filename if order.score is None else options.best_filename
    values: dict[str, int | float | str] = {**order.metrics, **asdict(order.position)}
    values["monitor"] = options.monitor or ""
    return names.render(template, values, insert_names=options.auto_insert_metric_name)


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """The files of one run.

    Attributes:
        best: The best, by score.
        newest: The newest, of those not saved for being best alone.
        last_path: The newest of all.
        saved: Where the run stood at that one.
        saved_reasons: What that one was saved for.
        written: Files that this run wrote and may delete.
    """

    best: Best
    newest: Newest
    last_path: str = ""
    saved: Position | None = None
    saved_reasons: Set[str] = frozenset()
    written: frozenset[str] = frozenset()

    @classmethod
    def empty(cls, options: Options) -> Shelf:
        """Before the first save."""
        return cls(
            best=Best(keep=options.save_top_k, mode=options.mode, min_delta=options.min_delta),
            newest=Newest(keep=options.save_last_k),
        )

    @classmethod
    def found(cls, options: Options, mine: Iterable[CheckpointInfo], position: Position) -> Shelf:
        """As it was when the run stood there, by the files themselves. Later files than that are let be."""
        shelf = cls.empty(options)
        past = sorted((info for info in mine if info.kind != "manual" and info.at <= position), key=lambda it: it.at)
        best, newest = shelf.best, shelf.newest
        for info in past:
            if info.score is not None and (info.monitor, info.mode) == (options.monitor, options.mode):
                best = best.add(info.path, info.score)
            if set(info.reasons) - {"best"}:
                newest = newest.add(info.path)
        return replace(
            shelf,
            best=best,
            newest=newest,
            last_path=past[-1].path if past else "",
            saved=past[-1].at if past and past[-1].at == position else None,
            written=frozenset(info.path for info in past if info.monitor in (None, options.monitor)),
        )

    @property
    def kept(self) -> set[str]:
        """The files that stay."""
        return {*self.best.scores, *self.newest.names, self.last_path} - {""}

    def add(self, path: str, order: Order) -> Shelf:
        """With this file in its place. What falls out is in ``written``, and not in ``kept``."""
        return replace(
            self,
            best=self.best if order.score is None else self.best.add(path, order.score),
            newest=self.newest.add(path) if order.reasons - {"best"} else self.newest,
            last_path=path,
            saved=order.position,
            saved_reasons=order.reasons,
            written=frozenset((self.written | self.kept | {path}) - {""}),
        )

    def without(self, gone: Iterable[str]) -> Shelf:
        """Without these, because their files are gone."""
        lost = set(gone)
        left = replace(
            self, best=self.best.without(lost), newest=self.newest.without(lost), written=self.written - lost
        )
        if self.last_path not in lost:
            return left
        others = [*left.newest.names[::-1], *left.best.scores]
        return replace(left, last_path=next(iter(others), ""), saved=None)

    def outdated(self) -> set[str]:
        """The files that no longer belong to the kept ones."""
        return set(self.written - self.kept)

    def replaceable(self, order: Order) -> set[str]:
        """The files of this run that a save will make outdated, so that it may take their names."""
        after = self.add(_NEW, order)
        return set(self.written - {*after.best.scores, *after.newest.names})

    def has(self, position: Position, due: Set[str]) -> bool:
        """Whether this moment is saved already; if it is to be one of the best, or the end of an epoch: as that."""
        if self.saved != position or ("best" in due and self.last_path not in self.best.scores):
            return False
        return "epoch" not in due or self.saved_reasons.isdisjoint({"interval", "step", "time"})
