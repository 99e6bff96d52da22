"""A real directory and its model, side by side: everything is done to both, and then they are compared."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import invariants
from model.expected import Attempt, Directory, Entry, File, Rules, Run, best_entries, newest_to_resume, outdated
from model.fits import Fit, serial_of
from model.live import Live
from model.process import Killed, Process

from checkpointable._errors import CheckpointFileError
from checkpointable.catalog.info import read_info
from checkpointable.policy.reasons import Reason
from checkpointable.saving.save_task import SaveRequest, SaveResult


class World:
    """A directory with processes.

    Attributes:
        live: Those that train.
        room: Bytes for all files together; ``None`` for no limit.
    """

    def __init__(self, directory: Path, mode: str) -> None:
        self.directory, self.mode = directory, mode
        self.model = Directory()
        self.live: list[Live] = []
        self.room: int | None = None
        self.serial = 0
        self._is_between = False  # in the middle of a save of another process

    def free_bytes(self, path: str) -> int | None:
        """What is left of the room."""
        if self.room is None:
            return None
        inodes = {status.st_ino: status.st_blocks * 512 for status in map(os.lstat, self._all_files())}
        return self.room - sum(inodes.values())

    def start(self, rules: Rules, resume_from: str | None, *, strike: int | None = None) -> Live | None:
        """Start a process, which resumes from a file; ``None`` if it is killed at its ``strike``-th call."""
        path = None if resume_from is None else self.directory / resume_from
        fit = Fit(self.directory, path, **vars(rules))
        process = Process()
        process.strike(strike)
        before = self._names()
        try:
            with process.running():
                fit.open()
        except Killed:
            assert strike is not None
            return None
        finally:
            invariants.assert_files_are(self.directory, before)
        process.strike(None)
        live = Live(process=process, fit=fit, run=self._run(fit, rules, resume_from))
        self.live.append(live)
        if len(self.live) == 1:
            invariants.assert_no_leftovers(self.directory)
        return live

    def save(
        self, live: Live, reasons: frozenset[str], score: float | None, *, strike: int | None = None, beside=None
    ) -> None:
        """Save once, at the present position. ``beside`` happens at the ``strike``-th call; else that is the end."""
        for part in live.fit.options.files_for(frozenset(map(Reason, reasons))):
            if live.process.is_dead:
                return
            self._save(live, part, score if Reason.BEST in part else None, strike, beside)
            strike = None

    def _save(self, live: Live, reasons: frozenset[Reason], score: float | None, strike, beside) -> None:
        run, process = live.run, live.process
        with process.running():
            request = live.fit.request(reasons, score)
        assert (request is None) == self._has(run, reasons, live), "saved already"
        if request is None:
            return
        self.serial += 1
        serial = self.serial
        resumable = self.model.latest()
        result = self._result_of(live, request, serial, strike, beside)
        if process.is_dead:
            self.live.remove(live)
        self._settle(live, request, serial, result, is_alone=beside is None and not self._is_between)
        assert resumable is None or self.model.latest() is not None, "there was a file to resume from, and now is none"

    def _result_of(
        self, live: Live, request: SaveRequest, serial: int, strike: int | None, beside
    ) -> SaveResult | None:
        """What the real save says; ``None`` if its process is killed in it."""
        live.process.strike(strike, None if beside is None else lambda: self._between(beside))
        try:
            with live.process.running():
                return live.fit.save(request, serial)
        except Killed:
            return None
        finally:
            live.process.strike(None)

    def _between(self, beside) -> None:
        self._is_between = True
        try:
            beside()
        finally:
            self._is_between = False

    def _settle(
        self, live: Live, request: SaveRequest, serial: int, result: SaveResult | None, *, is_alone: bool
    ) -> None:
        """Compare what a save has left with the model, and take it over."""
        model, run, before = self.model, live.run, self._names()
        is_sure = is_alone and self.room is None
        new = self._entry(run, request, "")
        model.forget_missing(run)
        expected = model.name_for(run, request.base_name, new)
        name = self._name_of(serial, result)
        if result is not None and result.problem is None:
            assert name is not None
            if is_sure:
                assert name == expected, f"{name} was saved, not {expected}"
        elif result is not None:
            assert name is None, f"{result.problem}, but {name} is there"
        now = set(invariants.files(self.directory))
        entries, deleted = run.entries, set[str]()
        if name is not None:
            is_free = name not in model.files or model.may_delete(run, name)
            assert is_free, f"{name} was written over"
            new = replace(new, name=name)
            entries, deleted = model.after(run, new)
            model.files[name] = self._file(run, request, serial)
        may_go = deleted | (self._may_make_room(run, new) if self.room is not None else set())
        gone = (before | {name} if name else before) - now
        invariants.assert_only_gone(before, now, may_go)
        if is_sure and result is not None and result.problem is None:
            assert gone == deleted, f"deleted: {sorted(gone)}; outdated: {sorted(deleted)}"
        for it in gone:
            del model.files[it]
        run.entries = [entry for entry in entries if entry.name in model.files]
        if self.room is not None:
            self._note_reduced(run)
        if is_alone and result is not None and result.problem is None and run.rules.save_last:
            self._assert_links(run)

    def _assert_links(self, run: Run) -> None:
        for role, entries in (("last", newest_to_resume(run.entries)), ("best", best_entries(run.entries, run.rules))):
            if entries:
                invariants.assert_link_leads_to(self.directory, role, self.directory / entries[0].name)

    def _may_make_room(self, run: Run, new: Entry) -> set[str]:
        """What may go where there is little room: all that is outdated or best, but the newest to resume from."""
        goes = outdated([*run.entries, new], run.rules) | {it.name for it in best_entries(run.entries, run.rules)}
        intact = [it for it in run.entries if self.model.files[it.name].is_intact]
        stays = {it.name for it in newest_to_resume(intact)} | {
            it.name for it in run.entries if "kept_epoch" in it.reasons
        }
        return {name for name in goes - stays if self.model.may_delete(run, name)}

    def _note_reduced(self, run: Run) -> None:
        for entry in list(run.entries):
            file = self.model.files[entry.name]
            if file.is_readable and not file.weights_only and read_info(self.directory / entry.name).weights_only:
                assert entry.score is not None, f"{entry.name} was reduced to its weights, and is no best file"
                assert entry.name != run.resumed_from, "the file resumed from was reduced to its weights"
                self.model.files[entry.name] = replace(file, weights_only=True)
                run.entries[run.entries.index(entry)] = replace(entry, weights_only=True)

    def _has(self, run: Run, reasons: frozenset[Reason], live: Live) -> bool:
        """Whether the position is saved already, in a file that serves these reasons."""
        weights_only = live.fit.options.holds_weights_only(reasons)
        newest = next((it for it in reversed(run.entries) if it.weights_only <= weights_only), None)
        if newest is None or newest.batches != run.batches or newest.name not in self.model.files:
            return False
        scored = {it.name for it in best_entries(run.entries, run.rules)}
        return not (
            ("best" in reasons and newest.name not in scored)
            or ("kept_epoch" in reasons and "kept_epoch" not in newest.reasons)
            or ("epoch" in reasons and not newest.reasons.isdisjoint({"interval", "step", "time"}))
        )

    def save_by_hand(self, live: Live, name: str) -> None:
        """The user saves, under a name that is free."""
        self.serial += 1
        with live.process.running():
            live.fit.save_by_hand(self.directory / name, self.serial)
        self.model.files[name] = self._file(live.run, None, self.serial)

    def copy(self, name: str, target: str) -> None:
        """The user copies a file."""
        (self.directory / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self.directory / name, self.directory / target)
        self.model.files[target] = replace(self.model.files[name], is_copy=True)

    def damage(self, name: str, at: int, *, cut: bool) -> None:
        """A byte is flipped, or the file ends early."""
        path = self.directory / name
        data = bytearray(path.read_bytes())
        if cut:
            del data[at % len(data) :]
        else:
            data[at % len(data)] ^= 1 << at % 8
        path.write_bytes(data)
        self.model.damage(name, is_readable=_is_readable(path))

    def delete(self, name: str) -> None:
        """Others delete a file."""
        (self.directory / name).unlink()
        self.model.take({name})

    def end(self, live: Live) -> None:
        """A process ends between two saves."""
        live.process.end()
        self.live.remove(live)

    def check(self) -> None:
        """What holds after everything that happens."""
        invariants.assert_files_are(self.directory, self._names())
        invariants.assert_latest_is(self.directory, self._path(self.model.latest()))
        invariants.assert_best_is(self.directory, self._path(self.model.best(self.mode)))
        gone = {self.directory / name for name in self.model.gone_targets}
        invariants.assert_links_lead_to_files(self.directory, gone=gone)

    def check_all(self) -> None:
        """Every file is as it was saved."""
        for link in invariants.links(self.directory):
            if not link.exists():
                link.unlink()
        damaged = {self.directory / name for name, file in self.model.files.items() if not file.is_intact}
        invariants.assert_whole(self.directory, damaged=damaged)
        for name, file in self.model.files.items():
            if file.is_readable:
                assert serial_of(self.directory / name) == file.serial, f"{name} is another one"

    def _run(self, fit: Fit, rules: Rules, resumed_from: str | None) -> Run:
        lineage = fit.progress.lineage
        ancestors: tuple[tuple[str, int], ...] = ()
        batches, generation = 0, 0
        if resumed_from is not None:
            file = self.model.files[resumed_from]
            assert fit.progress.run_id == file.run
            batches, ancestors = file.batches, (*file.ancestors, (file.attempt, file.batches))
            generation = max(file.generation + 1, self.model.next_generation(file.run))
        attempt = Attempt(run=fit.progress.run_id, name=lineage.attempt, generation=generation, ancestors=ancestors)
        run = Run(attempt=attempt, rules=rules, batches=batches, resumed_from=resumed_from)
        run.entries = self.model.found(run) if resumed_from is not None else []
        assert tuple((it.attempt, it.batches) for it in lineage.ancestors) == ancestors
        assert lineage.generation == generation
        return run

    def _entry(self, run: Run, request: SaveRequest, name: str) -> Entry:
        return Entry(
            name=name,
            batches=run.batches,
            reasons=frozenset(map(str, request.reasons)),
            score=request.score,
            weights_only=request.weights_only,
        )

    def _file(self, run: Run, request: SaveRequest | None, serial: int) -> File:
        return File(
            serial=serial,
            run=run.attempt.run,
            attempt=run.attempt.name,
            generation=run.attempt.generation,
            ancestors=run.attempt.ancestors,
            batches=run.batches,
            reasons=frozenset({"manual"} if request is None else map(str, request.reasons)),
            score=None if request is None else request.score,
            weights_only=request is not None and request.weights_only,
            base_name=None if request is None else request.base_name,
        )

    def _name_of(self, serial: int, result: SaveResult | None) -> str | None:
        """The name of the file of a save, if it is there."""
        if result is not None:
            return None if result.path is None else os.path.relpath(result.path, self.directory)
        for name in invariants.files(self.directory):
            path = self.directory / name
            known = self.model.files.get(name)
            if (known is None or known.is_readable) and serial_of(path) == serial:
                return name
        return None

    def _names(self) -> set[str]:
        return set(self.model.files)

    def _path(self, name: str | None) -> Path | None:
        return None if name is None else self.directory / name

    def _all_files(self) -> list[Path]:
        return [path for path in self.directory.rglob("*") if not path.is_dir()]


def _is_readable(path: Path) -> bool:
    try:
        read_info(path)
    except (CheckpointFileError, OSError):
        return False
    return True
