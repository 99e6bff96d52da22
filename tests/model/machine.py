"""The rules by which hypothesis makes histories of a directory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model.expected import BACKUP, Rules, admits
from model.fits import BATCHES
from model.live import Live
from model.process import simulated
from model.world import World

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
BLOCKS = 12288  # bytes that a file takes on the disk

counts = st.sampled_from([1, 1, 2, 3, 0, -1])
rules_of_a_run = st.builds(
    dict,
    save_top_k=counts,
    save_last_k=counts,
    min_delta=st.sampled_from([0.0, 0.0, 0.15]),
    save_weights_only=st.sampled_from([False, False, False, "best", True]),
    save_last=st.sampled_from([True, True, False]),
    names=st.sampled_from(["default", "default", "fixed", "one", "folders"]),
)
NAMES = {
    "default": {},
    "fixed": {"filename": "newest", "best_filename": "finest"},
    "one": {"filename": "ckpt", "best_filename": "ckpt"},
    "folders": {"filename": "epoch_{epoch}/batch_{batch}", "best_filename": "epoch_{epoch}/finest"},
}
picks = st.integers(0, 11)
strikes = st.integers(1, 40)
scores = st.integers(0, 9).map(lambda number: number / 10)
reasons = st.sampled_from(
    [
        *([{"interval"}] * 4), {"step", "time"}, {"epoch"}, {"epoch", "kept_epoch"}, {"last"}, {"exception"},
        *([{"best"}] * 3), {"best", "interval"}, {"best", "epoch", "kept_epoch"}, {"best", "last"},
    ]
).map(frozenset)  # fmt: skip
asked_saves = st.builds(dict, batches=st.sampled_from([0, 1, 1, 1, 2, 3]), reasons=reasons, score=scores)


def profile(histories: int, steps: int, **changed: Any) -> settings:
    """Always the same histories, so that a failure is no accident."""
    return settings(
        max_examples=histories,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        **changed,
    )


class Histories(RuleBasedStateMachine):
    """One history."""

    world_type = World

    def __init__(self) -> None:
        super().__init__()
        self.closing = contextlib.ExitStack()
        made = self.closing.enter_context(tempfile.TemporaryDirectory(prefix="modelled-", dir=MEMORY))
        self.directory = Path(os.path.realpath(made)) / "run"

    @initialize(mode=st.sampled_from(["min", "max"]), given=rules_of_a_run)
    def begin(self, mode: str, given: dict[str, Any]) -> None:
        self.world = self.world_type(self.directory, mode)
        self.closing.enter_context(simulated(self.world.free_bytes))
        self.world.start(self._rules(given), None)

    def _rules(self, given: dict[str, Any]) -> Rules:
        given = dict(given)
        names = NAMES[given.pop("names")]
        if given["save_weights_only"] == "best" and given["save_top_k"] == 0:
            given["save_top_k"] = 1
        return Rules(mode=self.world.mode, **given, **names)

    def _live(self, pick: int) -> Live:
        return self.world.live[pick % len(self.world.live)]

    def _file(self, pick: int, **wanted: bool) -> str | None:
        files = self.world.model.files
        names = sorted(
            (name for name, it in files.items() if all(getattr(it, key) is value for key, value in wanted.items())),
            key=lambda name: (-files[name].serial, name),
        )
        return names[pick % len(names)] if names else None

    @precondition(lambda self: len(self.world.live) < 2)
    @rule(given=rules_of_a_run, strike=st.none() | strikes)
    def start_anew(self, given: dict[str, Any], strike: int | None) -> None:
        self.world.start(self._rules(given), None, strike=strike)

    @precondition(lambda self: len(self.world.live) < 2)
    @rule(given=rules_of_a_run, strike=st.none() | strikes)
    def resume(self, given: dict[str, Any], strike: int | None) -> None:
        self.world.start(self._rules(given), self.world.model.latest(), strike=strike)

    @precondition(lambda self: len(self.world.live) < 2)
    @rule(given=rules_of_a_run, pick=picks)
    def branch(self, given: dict[str, Any], pick: int) -> None:
        name = self._file(pick, is_intact=True, weights_only=False)
        if name is not None:
            self.world.start(self._rules(given), name)

    def _reach(self, live: Live, batches: int, reasons: frozenset[str], score: float) -> tuple[frozenset[str], float]:
        """Train so many batches, and leave out the reasons for which such a run does not save."""
        run = live.run
        run.batches += batches
        if "epoch" in reasons:
            run.batches += -run.batches % BATCHES
        live.fit.reach(run.batches)
        left = set(reasons)
        if run.rules.save_last_k == 0:
            left -= {"interval", "step", "time"} | ({"epoch"} if "kept_epoch" not in left else set())
        if "best" in left:
            admitted = admits(run, score)
            assert live.fit.saver.admits(score) == admitted
            left -= set() if admitted else {"best"}
        return frozenset(left), score

    def _save(self, live: Live, asked: dict[str, Any], **trouble: Any) -> None:
        reasons, score = self._reach(live, **asked)
        if reasons:
            self.world.save(live, reasons, score, **trouble)

    @precondition(lambda self: self.world.live)
    @rule(pick=picks, saves=st.lists(asked_saves, min_size=1, max_size=4))
    def save(self, pick: int, saves: list[dict[str, Any]]) -> None:
        live = self._live(pick)
        for asked in saves:
            self._save(live, asked)
            self.world.check()

    @precondition(lambda self: self.world.live)
    @rule(pick=picks, saves=st.lists(asked_saves, min_size=1, max_size=3), strike=strikes)
    def save_and_be_killed(self, pick: int, saves: list[dict[str, Any]], strike: int) -> None:
        """In the last of some saves, or right after it."""
        live = self._live(pick)
        for asked in saves[:-1]:
            self._save(live, asked)
        self._save(live, saves[-1], strike=strike)
        if live in self.world.live:
            self.world.end(live)
        self.world.check_all()

    @precondition(lambda self: len(self.world.live) == 2)
    @rule(pick=picks, asked=asked_saves, strike=strikes, others=asked_saves)
    def save_beside_another(self, pick: int, asked: dict[str, Any], strike: int, others: dict[str, Any]) -> None:
        """While one saves, the other makes a whole save. Of one run twice, only the saves as a whole alternate."""
        live, other = self._live(pick), self._live(pick + 1)
        if live.run.attempt.run == other.run.attempt.run:
            return
        self._save(live, asked, strike=strike, beside=lambda: self._save(other, others))

    @precondition(lambda self: self.world.live)
    @rule(pick=picks)
    def end(self, pick: int) -> None:
        self.world.end(self._live(pick))

    @precondition(lambda self: self.world.live)
    @rule(pick=picks, name=st.sampled_from(["by_hand", "newest", "ckpt", "epoch_0_batch_2"]))
    def save_by_hand(self, pick: int, name: str) -> None:
        if f"{name}.ckpt" not in self.world.model.files:
            self.world.save_by_hand(self._live(pick), f"{name}.ckpt")

    @rule(pick=picks, aside=st.booleans())
    def copy(self, pick: int, aside: bool) -> None:
        name = self._file(pick)
        if name is not None:
            target = f"{BACKUP}{name}" if aside else f"copy_{len(self.world.model.files)}.ckpt"
            if target not in self.world.model.files:
                self.world.copy(name, target)

    @rule(pick=picks, at=st.integers(0, 20_000), cut=st.booleans())
    def damage(self, pick: int, at: int, cut: bool) -> None:
        name = self._file(pick, is_intact=True)
        if name is not None:
            self.world.damage(name, at, cut=cut)

    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        name = self._file(pick)
        if name is not None:
            self.world.delete(name)

    @rule(files=st.none() | st.integers(3, 14))
    def change_room(self, files: int | None) -> None:
        """The disk gets so much room as so many half files take."""
        self.world.room = None if files is None else files * BLOCKS // 2

    @rule()
    def read_everything(self) -> None:
        self.world.check_all()

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.closing.close()
