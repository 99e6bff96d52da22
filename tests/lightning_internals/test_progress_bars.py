"""The age of the newest durable save in the trainer's progress bar."""

from __future__ import annotations

import pickle
import time

import lightning as L
import pytest
from lightning.pytorch.callbacks import TQDMProgressBar
from nets import Net, loader, trainer

from checkpointable.lightning_internals.progress_bars import _age


class Reading(L.Callback):
    """Notes after each batch what the bar shows, and whether there is a file."""

    def __init__(self):
        self.shown = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        bar = trainer.progress_bar_callback
        shown = bar.get_metrics(trainer, pl_module).get("saved")
        self.shown.append((bool(pl_module.last_model_path), shown))


def fit(where, net, *callbacks, **options):
    reading = Reading()
    made = trainer(where, callbacks=[*callbacks, reading], enable_progress_bar=True, **options)
    made.fit(net, loader(6))
    return made, reading.shown


def test_bar_shows_the_age_of_the_newest_save_once_there_is_one(tmp_path):
    _, shown = fit(tmp_path, Net(dirpath=tmp_path, save_interval=2, async_save=False), max_epochs=1)
    assert shown[0] == (False, None)
    assert shown[-1][0]
    assert all(age is not None and age.endswith(" ago") for is_saved, age in shown if is_saved)
    assert all(age is None for is_saved, age in shown if not is_saved)


def test_bar_of_the_users_own_keeps_what_it_shows(tmp_path):
    class Own(TQDMProgressBar):
        def get_metrics(self, trainer, pl_module):
            return {"own": 1, "saved": "by me"}

    made, shown = fit(tmp_path, Net(dirpath=tmp_path, save_interval=2, async_save=False), Own(), max_epochs=1)
    assert {age for _, age in shown} == {"by me"}
    assert made.progress_bar_callback.get_metrics(made, made.lightning_module)["own"] == 1


def test_bar_of_a_run_that_saves_nothing_is_lightnings_own(tmp_path):
    net = Net(save_interval=None, save_last=False, save_top_k=0, save_on_exception=False)
    made, _ = fit(tmp_path, net, max_epochs=1)
    assert type(made.progress_bar_callback) is TQDMProgressBar


def test_bar_can_be_pickled_with_its_trainer(tmp_path):
    made, _ = fit(tmp_path, Net(dirpath=tmp_path, save_interval=2), max_epochs=1)
    again = pickle.loads(pickle.dumps(made.progress_bar_callback))
    assert isinstance(again, TQDMProgressBar)
    assert again.saves.durable_at <= time.monotonic()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (90000, "1 d"), (-1, "0 s")]
)
def test_age_is_said_in_its_largest_unit(seconds, said):
    assert _age(seconds) == said
