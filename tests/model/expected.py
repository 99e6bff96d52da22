"""The model: what a directory of runs is expected to hold, in plain Python, with nothing of the library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

BACKUP = "backup/"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The arguments of a run that matter here."""

    save_top_k: int = 1
    save_last_k: int = 1
    mode: str = "min"
    min_delta: float = 0.0
    save_weights_only: bool | str = False
    save_last: bool = True
    filename: str = "epoch_{epoch}_batch_{batch}"
    best_filename: str = "best_{monitor}_epoch_{epoch}"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One call of ``fit``, and those it descends from, each with the batches done where the next one began."""

    run: str
    name: str
    generation: int = 0
    ancestors: tuple[tuple[str, int], ...] = ()

    def includes(self, file: File) -> bool:
        """Whether a file of this run lies on the way to here."""
        if file.run != self.run:
            return False
        return file.attempt == self.name or any(
            file.attempt == name and file.batches <= batches for name, batches in self.ancestors
        )


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that is there.

    ``serial`` tells it from all others, copies excepted. ``base_name`` is ``None`` where the user named it.
    """

    serial: int
    run: str
    attempt: str
    generation: int
    ancestors: tuple[tuple[str, int], ...]
    batches: int
    reasons: frozenset[str]
    score: float | None
    weights_only: bool
    base_name: str | None
    is_copy: bool = False
    is_intact: bool = True
    is_readable: bool = True  # what it states about itself


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a run remembers of a file that it keeps."""

    name: str
    batches: int
    reasons: frozenset[str]
    score: float | None
    weights_only: bool


@dataclass(kw_only=True)
class Run:
    """An attempt that lives."""

    attempt: Attempt
    rules: Rules
    batches: int = 0
    resumed_from: str | None = None
    entries: list[Entry] = field(default_factory=list)


def sign(rules: Rules) -> int:
    return 1 if rules.mode == "min" else -1


def ranked(entries: Iterable[Entry], rules: Rules) -> list[Entry]:
    """Those with a score, best first."""
    scored = [entry for entry in entries if entry.score is not None and not math.isnan(entry.score)]
    return sorted(scored, key=lambda entry: sign(rules) * (entry.score or 0.0))


def best_entries(entries: Iterable[Entry], rules: Rules) -> list[Entry]:
    found = ranked(entries, rules)
    return found if rules.save_top_k == -1 else found[: rules.save_top_k]


def newest_to_resume(entries: list[Entry]) -> list[Entry]:
    whole = [entry for entry in entries if not entry.weights_only]
    return (whole or entries)[-1:]


def kept(entries: list[Entry], rules: Rules) -> list[Entry]:
    """What the rules keep, beside what is kept for ever."""
    periodic = [entry for entry in entries if entry.reasons != {"best"}]
    newest = periodic if rules.save_last_k == -1 else periodic[len(periodic) - min(rules.save_last_k, len(periodic)) :]
    stay = {entry.name for entry in (*best_entries(entries, rules), *newest, *newest_to_resume(entries))}
    return [entry for entry in entries if entry.name in stay]


def outdated(entries: list[Entry], rules: Rules) -> set[str]:
    forever = {entry.name for entry in entries if "kept_epoch" in entry.reasons}
    return {entry.name for entry in entries} - {entry.name for entry in kept(entries, rules)} - forever


def admits(run: Run, score: float) -> bool:
    """Whether a score is among the best."""
    if math.isnan(score) or run.rules.save_top_k == 0:
        return False
    best = best_entries(run.entries, run.rules)
    if run.rules.save_top_k == -1 or len(best) < run.rules.save_top_k:
        return True
    return sign(run.rules) * ((best[-1].score or 0.0) - score) > run.rules.min_delta


class Directory:
    """What lies in a directory of one and several runs, by name; links and temporaries left out."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.gone_targets: set[str] = set()  # which others have deleted

    def may_delete(self, run: Run, name: str) -> bool:
        """Whether a run may delete what is there: it wrote it, knows that, and has not resumed from it."""
        file = self.files.get(name)
        if file is None or not file.is_readable or file.is_copy or name == run.resumed_from:
            return False
        return run.attempt.includes(file) and "manual" not in file.reasons

    def name_for(self, run: Run, base_name: str, new: Entry) -> str:
        """The name that a new file takes: the first that is free, or that of a file which it replaces."""
        goes = outdated([*run.entries, replace(new, name="")], run.rules)
        version = 0
        while True:
            name = f"{base_name}.ckpt" if version == 0 else f"{base_name}-v{version}.ckpt"
            if name not in self.files or (name in goes and self.may_delete(run, name)):
                return name
            version += 1

    def forget_missing(self, run: Run) -> None:
        run.entries = [entry for entry in run.entries if entry.name in self.files]

    def after(self, run: Run, new: Entry) -> tuple[list[Entry], set[str]]:
        """What the run remembers after a save, and what it deletes then."""
        entries = [entry for entry in run.entries if entry.name != new.name] + [new]
        deleted = {name for name in outdated(entries, run.rules) if name == new.name or self.may_delete(run, name)}
        return kept(entries, run.rules), deleted - {run.resumed_from}

    def found(self, run: Run) -> list[Entry]:
        """What a run remembers that resumes: what it has saved; of copies those where it resumes, if nothing else."""
        own = {name: file for name, file in self._past(run).items() if not file.is_copy}
        saves = {file.serial for file in own.values()}
        if run.resumed_from is not None and run.resumed_from.startswith(BACKUP):
            for name, file in self._past(run).items():
                if file.is_copy and name.startswith(BACKUP) and file.serial not in saves:
                    own[name] = file
        return [
            Entry(
                name=name,
                batches=file.batches,
                reasons=file.reasons,
                score=file.score,
                weights_only=file.weights_only,
            )
            for name, file in sorted(own.items(), key=lambda item: (item[1].batches, item[0]))
        ]

    def _past(self, run: Run) -> dict[str, File]:
        return {
            name: file
            for name, file in self.files.items()
            if file.is_readable and file.batches <= run.batches and run.attempt.includes(file)
            if "manual" not in file.reasons
        }

    def next_generation(self, run: str) -> int:
        return max(
            (file.generation + 1 for file in self.files.values() if file.run == run and file.is_readable), default=0
        )

    def in_order(self) -> list[tuple[str, File]]:
        """Newest last: runs by their newest file, within a run by attempt and position."""
        readable = [(name, file) for name, file in self.files.items() if file.is_readable]
        active = {file.run: max(it.serial for _, it in readable if it.run == file.run) for _, file in readable}

        def key(item: tuple[str, File]) -> tuple[object, ...]:
            name, file = item
            return (active[file.run], file.generation, file.batches, "manual" not in file.reasons, file.serial, name)

        return sorted(readable, key=key)

    def latest(self) -> str | None:
        """The newest intact file that can be resumed from."""
        found = [name for name, file in self.in_order() if file.is_intact and not file.weights_only]
        return found[-1] if found else None

    def best(self, mode: str) -> str | None:
        """The best intact file on the newest branch of each run."""
        ordered = self.in_order()
        newest = {file.run: file for _, file in ordered}
        heads: Mapping[str, Attempt] = {
            run: Attempt(run=run, name=file.attempt, ancestors=file.ancestors) for run, file in newest.items()
        }
        scored = [(name, file) for name, file in ordered if file.score is not None and heads[file.run].includes(file)]
        by_score = sorted(scored, key=lambda item: (1 if mode == "min" else -1) * (item[1].score or 0.0))
        return next((name for name, file in by_score if file.is_intact), None)

    def damage(self, name: str, *, is_readable: bool) -> None:
        self.files[name] = replace(self.files[name], is_intact=False, is_readable=is_readable)

    def take(self, names: Set[str]) -> None:
        """Others delete files."""
        for name in names:
            del self.files[name]
        self.gone_targets |= names
