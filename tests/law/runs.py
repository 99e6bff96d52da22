"""One training for the test of the law: its configuration, what it did, and when each file was saved."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics
from doors import is_callback, opened, tree_of
from lightning.pytorch.loggers.logger import Logger
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, WeightedRandomSampler

from checkpointable import Checkpointing

SAMPLES, BATCH, EPOCHS = 22, 4, 3


@dataclass(frozen=True)
class Config:
    """One configuration of a training."""

    sampler: str = "shuffle"
    workers: int = 0
    persistent: bool = False
    loaders: str = "one"
    source: str = "fit"
    accumulate: int = 1
    validation: str = "epoch"
    scheduler: str = "none"
    optimization: str = "automatic"
    limit: str = "none"
    patience: int | None = None
    drop_last: bool = False
    clip: float | None = None
    precision: str = "32-true"
    reload: int = 0
    seeded: bool = True
    door: str = "module"

    def __str__(self) -> str:
        plain = asdict(Config())
        return ",".join(f"{name}={value}" for name, value in asdict(self).items() if value != plain[name]) or "plain"


class Digits(Dataset):
    """Samples with their index, and with random augmentation from all global generators."""

    def __init__(self, size: int = SAMPLES) -> None:
        self.inputs = torch.randn(size, 3, generator=torch.Generator().manual_seed(7))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Any:
        noise = torch.randn(3) + random.random() + float(np.random.rand())
        return index, self.inputs[index] + 0.1 * noise, int(self.inputs[index].sum() > 0)


class Streamed(IterableDataset):
    """The same samples as an iterable data set without a length."""

    def __init__(self, size: int = SAMPLES) -> None:
        self.samples = Digits(size)

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        start, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (self.samples[index] for index in range(start, len(self.samples), stride))


class Sized(Streamed):
    def __len__(self) -> int:
        return len(self.samples)


class Lazy(Sampler):
    """A user's batch sampler that draws from the global generators at every batch."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return -(-self.size // BATCH)

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(len(self)):
            yield [random.randrange(self.size), *torch.randint(self.size, (BATCH - 1,)).tolist()]


class Remembering:
    """A loader that keeps its own position, as torchdata's does. Only a pass after a load starts elsewhere."""

    def __init__(self, size: int) -> None:
        self.samples = Digits(size)
        self.at = self.start = 0

    def __len__(self) -> int:
        return -(-len(self.samples) // BATCH)

    def __iter__(self) -> Iterator[Any]:
        self.at, self.start = self.start, 0
        return self.batches()

    def batches(self) -> Iterator[Any]:
        while self.at < len(self):
            chosen = range(self.at * BATCH, min((self.at + 1) * BATCH, len(self.samples)))
            self.at += 1
            yield torch.utils.data.default_collate([self.samples[index] for index in chosen])
        self.at = 0  # the position after a whole pass is the start of the next one

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = self.start = state["at"]


class Plain:
    """A loader without ``DataLoader``'s attributes."""

    def __init__(self, size: int) -> None:
        self.samples = Digits(size)

    def __len__(self) -> int:
        return len(self.samples) // BATCH

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, BATCH * len(self), BATCH):
            yield torch.utils.data.default_collate([self.samples[start + place] for place in range(BATCH)])


def seed_by_hand(worker: int) -> None:
    """A user's ``worker_init_fn``."""
    torch.manual_seed(1000 + worker)


def make_loader(config: Config, size: int = SAMPLES) -> Any:
    workers = {"num_workers": config.workers, "persistent_workers": config.persistent and config.workers > 0}
    if config.sampler == "stateful":
        return Remembering(size)
    if config.sampler in ("torchdata_sized", "torchdata_unsized"):
        from torchdata.stateful_dataloader import StatefulDataLoader

        streamed = Sized if config.sampler == "torchdata_sized" else Streamed
        return StatefulDataLoader(streamed(size), batch_size=BATCH, **workers)
    if config.sampler in ("sized", "unsized"):
        return DataLoader((Sized if config.sampler == "sized" else Streamed)(size), batch_size=BATCH, **workers)
    if config.sampler == "lazy":
        return DataLoader(Digits(size), batch_sampler=Lazy(size), **workers)
    if config.sampler == "plain":
        return Plain(size)
    kwargs: dict[str, Any] = {"batch_size": BATCH, "drop_last": config.drop_last, **workers}
    if config.sampler == "weighted":
        kwargs["sampler"] = WeightedRandomSampler(torch.linspace(0.1, 1, size), size)
    elif config.sampler == "replacement":
        kwargs["sampler"] = torch.utils.data.RandomSampler(Digits(size), replacement=True, num_samples=3 * size)
    else:
        kwargs["shuffle"] = config.sampler != "sequential"
    if config.sampler == "init" and config.workers:
        kwargs["worker_init_fn"] = seed_by_hand
    if config.sampler == "generator":
        kwargs["generator"] = torch.Generator().manual_seed(11)
    if config.sampler == "torchdata":
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(Digits(size), **kwargs)
    return DataLoader(Digits(size), **kwargs)


def training_loaders(config: Config) -> Any:
    if config.loaders == "one":
        return make_loader(config)
    both = {"a": make_loader(config), "b": make_loader(config, size=10)}
    return both if config.loaders == "cycle" else tree_of(config.door).utilities.CombinedLoader(both, config.loaders)


class Watched:
    """Records its batches and losses."""

    def __init__(self, config: Config, **options: Any) -> None:
        super().__init__(**options)
        self.config = config
        self.automatic_optimization = config.optimization == "automatic"
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.3), torch.nn.Linear(6, 2)
        )
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=2)
        self.events: list[Any] = []
        self.captured = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note how much had happened when the state was captured: the file is complete only later."""
        self.captured = len(self.events)

    def compute_loss(self, batch: Any, batch_idx: int) -> Any:
        total: Any = 0.0
        for part in batch.values() if isinstance(batch, dict) else [batch]:
            if part is None:
                continue
            index, inputs, labels = part
            scores = self.net(inputs) if len(inputs) > 1 or not self.training else self.net.eval()(inputs)
            self.net.train(self.training)
            if not self.trainer.sanity_checking:
                self.events.append((batch_idx, index.tolist(), digest(inputs)))
            total = total + F.cross_entropy(scores, labels)
            if self.training:
                self.accuracy(scores, labels)
        return total

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.automatic_optimization:
            loss = super().training_step(batch, batch_idx)
        else:
            loss = self.compute_loss(batch, batch_idx)
            for number, optimizer in enumerate(self.optimizers()):
                optimizer.zero_grad()
                self.manual_backward(loss, retain_graph=number == 0)
            for optimizer in self.optimizers():
                optimizer.step()
            self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("train_accuracy", self.accuracy, on_step=False, on_epoch=True)
        self.events.append(("loss", self.current_epoch, batch_idx, float(loss)))
        return loss

    def configure_optimizers(self) -> Any:
        if not self.automatic_optimization:
            return [torch.optim.Adam(self.net[0].parameters()), torch.optim.SGD(self.net[3].parameters(), lr=0.1)]
        optimizer = torch.optim.Adam(self.net.parameters(), lr=0.05)
        schedulers = torch.optim.lr_scheduler
        made: Any = {
            "none": None,
            "step": {"scheduler": schedulers.StepLR(optimizer, 3, 0.7), "interval": "step"},
            "epoch": schedulers.ExponentialLR(optimizer, 0.5),
            "plateau": {"scheduler": schedulers.ReduceLROnPlateau(optimizer, patience=0), "monitor": "val_loss"},
            "plateau_step": {
                "scheduler": schedulers.ReduceLROnPlateau(optimizer, patience=0),
                "monitor": "train_loss",
                "interval": "step",
                "frequency": 2,
            },
        }[self.config.scheduler]
        return optimizer if made is None else {"optimizer": optimizer, "lr_scheduler": made}

    def train_dataloader(self) -> Any:
        return training_loaders(self.config)

    def val_dataloader(self) -> Any:
        return make_loader(replace(self.config, sampler="shuffle", drop_last=False), size=9)


HOOKS = ("train_epoch_start", "train_batch_start", "train_batch_end", "validation_start", "validation_epoch_end")
HOOKS += ("validation_end", "train_epoch_end", "train_end")


def hooks(tree: Any) -> Any:
    """A callback that records the order of hooks, with learning rates and early stopping at each."""
    return type("Hooks", (tree.Callback,), {f"on_{name}": _hook(name) for name in HOOKS})()


def _hook(name: str) -> Any:
    def call(self: Any, trainer: Any, module: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
            waited = [callback.wait_count for callback in trainer.early_stopping_callbacks]
            module.events.append(
                (name, trainer.current_epoch, trainer.global_step, rates, waited, module.best_val_loss)
            )

    return call


class Rows(Logger):
    """Records what is logged at which step, and how much had happened when each file was saved."""

    name, version, save_dir = "rows", 0, None

    def __init__(self) -> None:
        super().__init__()
        self.module: Any = None
        self.taken: dict[str, int] = {}

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        assert self.module is not None
        self.module.events.append(("row", step, dict(sorted(metrics.items()))))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        assert self.module is not None
        self.taken[checkpoint_callback.last_model_path] = self.module.captured


@dataclass
class Outcome:
    """What a training did, and what it ended with."""

    events: list[Any]
    taken: dict[str, int] = field(default_factory=dict)
    final: dict[str, Any] = field(default_factory=dict)

    def differs_from(self, other: Outcome, since: int) -> str:
        """The first difference between this resumed run and the uninterrupted one; ``""`` if there is none."""
        expected = other.events[since:]
        for number, (mine, theirs) in enumerate(itertools.zip_longest(self.events, expected)):
            if mine != theirs:
                return f"event {number}: {mine} and not {theirs}"
        return _differing(self.final, other.final)


def _differing(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    return ", ".join(
        f"final {name}: {mine[name]} and not {theirs[name]}" for name in mine if mine[name] != theirs[name]
    )


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().float().contiguous().numpy().tobytes()).hexdigest()[:16]


def train(config: Config, where: Path, *, seed: int, ckpt_path: str | None = None, **options: Any) -> Outcome:
    """Train in this process, from generators seeded with ``seed``."""
    tree, options = tree_of(config.door), {"dirpath": where, "patience": config.patience, **options}
    tree.seed_everything(seed, workers=config.seeded, verbose=False)
    module, ours = opened(config.door, Watched)(config, **options), []
    if is_callback(config.door):
        ours = [Checkpointing(**options)]
    rows = Rows()
    rows.module = module
    trainer = tree.Trainer(
        accelerator="cpu",
        devices=1,
        logger=rows,
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=where,
        callbacks=[hooks(tree), *ours],
        num_sanity_val_steps=1,
        precision=config.precision,
        gradient_clip_val=config.clip,
        accumulate_grad_batches=config.accumulate,
        reload_dataloaders_every_n_epochs=config.reload,
        **_length(config),
        **_validation(config),
    )
    loaders = {} if config.source == "module" else {"train_dataloaders": module.train_dataloader()}
    loaders |= {} if config.source == "module" else {"val_dataloaders": module.val_dataloader()}
    if config.source == "datamodule":
        loaders = {"datamodule": tree.LightningDataModule.from_datasets()}
        loaders["datamodule"].train_dataloader = module.train_dataloader
        loaders["datamodule"].val_dataloader = module.val_dataloader
    trainer.fit(module, **loaders, ckpt_path=ckpt_path)
    states = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
    metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
    final = {
        "weights": {name: digest(weight) for name, weight in module.state_dict().items()},
        "optimizers": [
            digest(t) for s in states for v in s.values() for t in v.values() if isinstance(t, torch.Tensor)
        ],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "random": (random.random(), float(np.random.rand()), float(torch.rand(()))),
        "best": module.best_val_loss,
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "metrics": metrics,
    }
    return Outcome(module.events, rows.taken, final)


def _length(config: Config) -> dict[str, Any]:
    return {
        "none": {"max_epochs": EPOCHS},
        "limit_train_batches": {"max_epochs": EPOCHS, "limit_train_batches": 4},
        "overfit_batches": {"max_epochs": EPOCHS, "overfit_batches": 3},
        "max_steps": {"max_epochs": -1, "max_steps": 11},
    }[config.limit]


def _validation(config: Config) -> dict[str, Any]:
    return {
        "epoch": {},
        "half": {"val_check_interval": 0.5},
        "every": {"val_check_interval": 2},
        "across": {"val_check_interval": 4, "check_val_every_n_epoch": None},
        "second": {"check_val_every_n_epoch": 2},
    }[config.validation]


EVERYTHING: dict[str, Any] = {"save_interval": 1, "save_last_k": -1, "save_top_k": -1, "every_n_epochs": 1}


def misses(config: Config, where: Path, *, files: int | None = None) -> tuple[int, list[str]]:
    """Train once uninterrupted with every kind of save, resume from the files, and compare.

    Args:
        config: Of the training.
        where: An empty directory.
        files: Number of files to resume from, spread over the training; ``None`` = all.

    Returns:
        The number of files tried, and the difference for each that had one.
    """
    straight = train(config, where / "straight", seed=1, **EVERYTHING)
    taken = list(straight.taken.items())
    if files is not None and len(taken) > files:
        taken = [taken[number * (len(taken) - 1) // (files - 1)] for number in range(files)]
    found = []
    for number, (path, since) in enumerate(taken):
        resumed = train(config, where / str(number), seed=100 + number, ckpt_path=path, **EVERYTHING)
        difference = resumed.differs_from(straight, since)
        if difference:
            found.append(f"{config} from {Path(path).name}: {difference}")
    return len(taken), found


def combinations(count: int) -> list[Config]:
    """Random combinations of all options; the same ones at every call."""
    choose = random.Random(2026)
    found: dict[str, Config] = {}
    while len(found) < count:
        config = Config(**{name: choose.choice(values) for name, values in SPACE.items()})
        if _is_possible(config):
            found.setdefault(str(config), config)
    return list(found.values())


SPACE: dict[str, list[Any]] = {
    "sampler": [
        *("shuffle", "shuffle", "shuffle", "sequential", "weighted", "replacement", "generator", "lazy"),
        *("sized", "unsized", "plain", "stateful", "torchdata"),
    ],
    "workers": [0, 0, 0, 1, 2],
    "persistent": [False, True],
    "loaders": ["one", "one", "one", "cycle", "min_size", "max_size"],
    "source": ["fit", "module", "datamodule"],
    "accumulate": [1, 1, 3],
    "validation": ["epoch", "half", "every", "across", "second"],
    "scheduler": ["none", "step", "epoch", "plateau", "plateau_step"],
    "optimization": ["automatic", "automatic", "automatic", "manual"],
    "limit": ["none", "none", "limit_train_batches", "overfit_batches", "max_steps"],
    "patience": [None, None, 1],
    "drop_last": [False, True],
    "clip": [None, 0.5],
    "precision": ["32-true", "32-true", "bf16-mixed"],
    "reload": [0, 0, 1, 2],
    "seeded": [True, False],
}


def _is_possible(config: Config) -> bool:
    by_index = config.sampler not in ("sized", "unsized", "plain", "stateful", "lazy")
    return all(
        (
            config.workers > 0 or not config.persistent,
            config.optimization == "automatic"
            or (config.accumulate, config.clip, config.scheduler) == (1, None, "none"),
            by_index or (config.limit != "overfit_batches" and not config.drop_last),
            config.sampler != "unsized" or (config.validation != "half" and config.loaders == "one"),
            config.sampler not in ("plain", "stateful") or config.workers == 0,
            config.scheduler != "plateau" or config.validation not in ("second", "across"),
            config.reload == 0 or config.source != "fit",
        )
    )
