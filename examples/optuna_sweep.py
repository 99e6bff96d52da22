"""A sweep with Optuna that is killed in the middle of a trial, and goes on with that trial when it is run again.

You learn how a callback tells a trial of its durable checkpoints, how a trial is pruned, and how a trial that was
killed is run again with its parameters, in its directory, from its last checkpoint.
"""

import logging
import os
import signal
import tempfile
import warnings

import lightning as L
import optuna
import torch
from optuna.trial import TrialState
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from checkpointable import CheckpointingModule

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", message=".*does not have many workers|.*treespec")


class ReportToOptuna(L.Callback):
    """Reports the monitored value and the durable checkpoints to a trial, and ends it where Optuna prunes it."""

    def __init__(self, trial, monitor="val_loss"):
        self.trial, self.monitor = trial, monitor

    def on_validation_end(self, trainer, module):
        if trainer.sanity_checking:
            return
        self.note_files(trainer)
        self.trial.report(float(trainer.callback_metrics[self.monitor]), step=trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned

    def on_train_end(self, trainer, module):  # the last checkpoint is durable now
        self.note_files(trainer)

    def note_files(self, trainer):
        for name in ("best_model_path", "last_model_path"):
            self.trial.set_user_attr(name, getattr(trainer.checkpoint_callback, name))


class LitDigits(CheckpointingModule):
    def __init__(self, width, dirpath):
        super().__init__(dirpath=dirpath, resume="auto", save_interval=20, learning_rate=3e-3)
        self.net = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))

    def compute_loss(self, batch):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)


class Kill(L.Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def objective(trial, directory, killed_trial):
    dirpath = trial.user_attrs.get("dirpath", f"{directory}/trial_{trial.number}")
    trial.set_user_attr("dirpath", dirpath)
    L.seed_everything(1, verbose=False)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    training, held_out = random_split(TensorDataset(images.float() / 16, labels), [1500, 297])
    net = LitDigits(trial.suggest_int("width", 4, 64), dirpath)
    callbacks = [ReportToOptuna(trial), *([Kill()] if trial.number == killed_trial else [])]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", callbacks=callbacks, **quiet)
    trainer.fit(net, DataLoader(training, batch_size=32, shuffle=True), DataLoader(held_out, batch_size=297))
    return net.best_val_loss


def sweep(directory, trials=5, killed_trial=None):
    storage = f"sqlite:///{directory}/sweep.db"
    study = optuna.create_study(study_name="digits", storage=storage, load_if_exists=True)
    for killed in study.get_trials(states=[TrialState.RUNNING]):
        study.enqueue_trial(killed.params, user_attrs={"dirpath": killed.user_attrs["dirpath"]})
        study.tell(killed.number, state=TrialState.FAIL)
    done = len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED]))
    study.optimize(lambda trial: objective(trial, directory, killed_trial), n_trials=trials - done)
    return study


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        child = os.fork()
        if child == 0:
            sweep(where, killed_trial=1)
        print("the sweep was killed:", os.waitpid(child, 0)[1] == signal.SIGKILL)
        for trial in sweep(where).trials:
            directory, file = trial.user_attrs["last_model_path"].split("/")[-2:]
            print(f"trial {trial.number} {trial.state.name:8} {trial.params} in {directory}: {file}")
