"""A signal to one of two real processes, or to both: all save the same state, stop, and resume exactly from it."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from forked import printed

# A rank notes at once what it sends itself. The other one surely does so before the next batch only if it still has to
# wait for the sender in this one, as it does before a backward.
SCRIPT = Path(__file__).parent / "signalled_ranks.py"
WINDOW = {"number": signal.SIGTERM, "hook": "on_train_batch_end", "at": 2, "windows": 2, "receivers": (1,)}
DUE = {"hook": "on_train_batch_end", "at": 1, "receivers": (1,), "options": {"save_interval": 2}}
VALIDATING = "on_validation_batch_start"
UNEVEN = {"hook": VALIDATING, "at": 4}  # when the other rank has done its batches
CASES: list[dict[str, Any]] = [
    {"name": "in_a_batch", "number": signal.SIGTERM, "hook": "on_before_zero_grad", "at": 3},
    {"name": "on_both", "number": signal.SIGINT, "hook": "on_after_backward", "at": 4, "receivers": (0, 1)},
    {"name": "in_a_window", **WINDOW},
    {"name": "twin", "twin": True, **WINDOW},
    {"name": "in_the_epochs_end", "number": signal.SIGTERM, "hook": "on_train_epoch_end", "at": 0, "receivers": (1,)},
    {"name": "in_a_validation", "number": signal.SIGTERM, "hook": VALIDATING, "at": 1, "receivers": (1,)},
    {"name": "while_rank_0_waits", "number": signal.SIGINT, **UNEVEN, "receivers": (1,), "longer": 1},
    {"name": "to_a_rank_that_waits", "number": signal.SIGTERM, **UNEVEN, "longer": 1, "waits": True},
    {"name": "while_rank_1_waits", "number": signal.SIGTERM, **UNEVEN, "longer": 0, "sender": 0},
    {"name": "slurm", "number": signal.SIGUSR1, "hook": "on_after_backward", "at": 3, "slurm": True, "receivers": (1,)},
    {"name": "while_a_save_is_due", "number": signal.SIGINT, **DUE},
    {"name": "parted", "number": signal.SIGTERM, "hook": "on_before_zero_grad", "at": 3, "parted": True},
]
CUT = ("in_a_validation", "while_rank_0_waits", "to_a_rank_that_waits", "while_rank_1_waits")
CUT_STATUS = [(name, 130 if name == "while_rank_0_waits" else 143) for name in CUT]
SAVED = {
    "in_a_batch": "epoch_0_batch_4.ckpt",
    "on_both": "epoch_0_batch_5.ckpt",
    "in_a_window": "epoch_0_batch_4.ckpt",
    "in_the_epochs_end": "epoch_0_batch_6.ckpt",
    **dict.fromkeys(CUT, "epoch_0_batch_6.ckpt"),
    "slurm": "epoch_0_batch_4.ckpt",
    "while_a_save_is_due": "epoch_0_batch_2.ckpt",
    "parted": "epoch_0_batch_4.ckpt",
}


def outcomes(where, cases):
    return {line["name"]: line for line in printed(SCRIPT, where, json.dumps(cases), where=where)}


@pytest.fixture(scope="module")
def signalled(tmp_path_factory):
    return outcomes(tmp_path_factory.mktemp("signalled"), CASES)


@pytest.mark.parametrize("name", SAVED)
def test_signal_to_a_rank_saves_one_state_of_all_and_resumes_exactly_without_training_a_batch_twice(signalled, name):
    came = signalled[name]
    assert came["saved"] == [SAVED[name]]
    assert came["resumed"] == [0, 0]
    assert came["same"] == [True, True]


@pytest.mark.parametrize("name", SAVED)
def test_signal_in_a_validation_cuts_it_short_on_all_ranks(signalled, name):
    """Also where one has more batches than the other, which waits for it."""
    assert signalled[name]["cut"] == (name in CUT)


@pytest.mark.parametrize(("name", "status"), [("in_a_batch", 143), ("on_both", 130), *CUT_STATUS])
def test_exit_status_of_each_rank_tells_of_the_signal(signalled, name, status):
    """They are started one by one. Those that Lightning launches end with 0: see ``test_dying_ranks``."""
    assert signalled[name]["ended"] == [status, status]


def test_signal_of_slurm_requeues_once_and_the_job_goes_on_without_a_ckpt_path(signalled):
    """Whichever task gets it."""
    assert signalled["slurm"]["commands"] == "requeue 77\n"
    assert signalled["slurm"]["ended"] == [128 + signal.SIGUSR1] * 2


def test_twin_ranks_that_stop_inside_a_window_do_not_resume_exactly(signalled):
    """The file holds the gradients of rank 0 alone."""
    assert signalled["twin"]["saved"] == ["epoch_0_batch_3.ckpt"]
    assert signalled["twin"]["same"] == [False, False]


HOOKS = (
    *("on_train_batch_start", "on_before_backward", "on_after_backward", "on_before_zero_grad", "on_train_batch_end"),
    *("on_validation_batch_start", "on_validation_end", "on_train_epoch_end", "on_train_epoch_start"),
)


@pytest.mark.sweep
@pytest.mark.parametrize("receivers", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_thirty_random_moments_of_a_signal_all_resume_exactly(tmp_path, number, receivers):
    draw = random.Random(f"{number} {receivers}")
    cases = []
    for moment in range(30):
        hook = draw.choice(HOOKS)
        once = hook in ("on_validation_end", "on_train_epoch_end")
        # Before the training a rank does not note Ctrl-C, and another one may be so far behind in the first epoch.
        at = 1 if hook == "on_train_epoch_start" else 0 if once else draw.randrange(4)
        options = {"save_interval": draw.choice([None, 1, 2])}
        case = {"hook": hook, "at": at, "sender": draw.randrange(2), "windows": draw.choice([1, 2]), "options": options}
        cases.append({"name": f"moment_{moment}", "number": number, "receivers": receivers, **case})
    for came in outcomes(tmp_path, cases).values():
        assert came["ended"] == [128 + number] * 2, came
        assert came["resumed"] == [0, 0], came
        assert came["same"] == [True, True], came


@pytest.mark.sweep
def test_signal_in_a_validation_of_a_parted_model_waits_until_it_is_over(tmp_path):
    case = {"name": "parted", "number": signal.SIGINT, "hook": VALIDATING, "at": 1, "parted": True}
    came = outcomes(tmp_path, [case])["parted"]
    assert (came["cut"], came["saved"], came["ended"]) == (False, ["epoch_0_batch_6.ckpt"], [130, 130])
    assert (came["resumed"], came["same"]) == ([0, 0], [True, True])
