"""User code with its own state, for ``test_owned``: data with generators, samplers that count, modules that freeze."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from runs import digest
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler, Subset, TensorDataset

from checkpointable import CheckpointingModule

BATCHES, BATCH = 5, 3  # odd: generators that make normal numbers in pairs keep one for the next batch
SIZE = BATCHES * BATCH


def digits(size: int = SIZE) -> TensorDataset:
    inputs = torch.randn(size, 3, generator=torch.Generator().manual_seed(7))
    return TensorDataset(inputs, (inputs.sum(1) > 0).long())


def plain(samples: Dataset | None = None, **options: Any) -> DataLoader:
    return DataLoader(
        samples or digits(), **(options if "batch_sampler" in options else {"batch_size": BATCH, **options})
    )


class Seen(CheckpointingModule):
    """Records its batches and outputs, and which parameters are frozen and which modules train."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.backbone = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.3))
        self.head = torch.nn.Linear(6, 2)
        self.events: list[Any] = []
        self.captured = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.captured = len(self.events)

    def compute_loss(self, batch: Any) -> torch.Tensor:
        inputs, labels = batch
        self.scores = self.head(self.backbone(inputs))
        if not self.trainer.sanity_checking:
            self.events.append(("batch", digest(inputs), digest(self.scores)))
        return F.cross_entropy(self.scores, labels)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        frozen = [name for name, weight in self.named_parameters() if not weight.requires_grad]
        training = [name for name, part in self.named_modules() if part.training]
        self.events.append(("loss", self.current_epoch, batch_idx, frozen, training))

    def configure_optimizers(self) -> Any:
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        return torch.optim.SGD(trained, lr=0.05, momentum=0.9)


class Draws:
    """A transform with a generator of its own, which applies other transforms first."""

    def __init__(self, generator: Any, draw: Callable[[Any], float], *parts: Draws) -> None:
        self.generator, self.draw, self.parts = generator, draw, parts

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            inputs = part(inputs)
        return inputs + 0.1 * self.draw(self.generator)


class Augmented(Dataset):
    def __init__(self, samples: Dataset, *transforms: Any) -> None:
        self.samples, self.transforms = samples, {"train": list(transforms)}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        inputs, label = self.samples[index]
        for transform in self.transforms["train"]:
            inputs = transform(inputs)
        return inputs, label


def of_torch(*parts: Draws) -> Draws:
    return Draws(torch.Generator().manual_seed(3), lambda own: float(torch.rand((), generator=own)), *parts)


def of_python(*parts: Draws) -> Draws:
    return Draws(random.Random(4), lambda own: own.gauss(0, 1), *parts)


def of_numpy(bits: type = np.random.PCG64) -> Draws:
    return Draws(np.random.Generator(bits(5)), lambda own: float(own.random(dtype=np.float32)))


def of_old_numpy() -> Draws:
    return Draws(np.random.RandomState(6), lambda own: float(own.randn()))


def in_transforms() -> Dataset:
    return Subset(Augmented(digits(), of_torch(), of_python(), of_numpy(), of_old_numpy()), range(SIZE))


def in_data_sets_of_data_sets() -> Dataset:
    parts = [Augmented(digits(9), of_torch(of_python(of_old_numpy()))), Augmented(digits(6), of_torch(of_numpy()))]
    return Subset(ConcatDataset(parts), range(SIZE))


class Keeping:
    """Draws random numbers in a method."""

    def __init__(self) -> None:
        self.own = random.Random(9)

    def draw(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.own.random()


def add(inputs: torch.Tensor, own: np.random.Generator) -> torch.Tensor:
    return inputs + float(own.random(dtype=np.float32))


def in_functions() -> Dataset:
    """A bound method, a partial and a closure, each with a generator."""
    own = torch.Generator().manual_seed(10)
    partly = partial(add, own=np.random.default_rng(11))
    return Augmented(digits(), Keeping().draw, partly, lambda inputs: inputs + torch.rand((), generator=own))


def of_64_bits() -> Dataset:
    return Augmented(digits(), *(of_numpy(bits) for bits in (np.random.Philox, np.random.SFC64, np.random.MT19937)))


class Noisy:
    """A ``collate_fn`` that draws random numbers."""

    def __init__(self) -> None:
        self.noise = [of_torch(), of_old_numpy()]

    def __call__(self, samples: list[Any]) -> Any:
        inputs, labels = torch.utils.data.default_collate(samples)
        return self.noise[0](self.noise[1](inputs)), labels


class Drawing(Sampler):
    """Draws each batch from its own generator."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(8)

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Any:
        return (torch.randint(SIZE, (BATCH,), generator=self.generator).tolist() for _ in range(BATCHES))


class Counting(Sampler):
    """Counts its passes, and shuffles by the count."""

    def __init__(self, batches: bool) -> None:
        self.passes, self.batches = 0, batches

    def __len__(self) -> int:
        return BATCHES if self.batches else SIZE

    def __iter__(self) -> Any:
        self.passes += 1
        order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(self.passes))
        return iter(order.view(BATCHES, BATCH).tolist() if self.batches else order.tolist())


def set_up(module: Seen, epoch: int) -> None:
    """Freeze the backbone in odd epochs, and set it to evaluation mode."""
    module.backbone.requires_grad_(epoch % 2 == 0)
    module.backbone.train(epoch % 2 == 0)
    module.head.bias.requires_grad_(epoch % 2 == 1)


class Freezing(L.Callback):
    def on_train_epoch_start(self, trainer: L.Trainer, module: Seen) -> None:
        set_up(module, trainer.current_epoch)


class FreezingItself(Seen):
    def on_train_epoch_start(self) -> None:
        set_up(self, self.current_epoch)


class ByHand(Seen):
    """Steps with every third batch. An epoch has five batches, so accumulation windows span epochs."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss, optimizer = self.compute_loss(batch), self.optimizers()
        self.manual_backward(loss / 3)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        if (self.current_epoch * BATCHES + batch_idx) % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients of the window, which Lightning would set to zero."""


class Zeroing(Seen):
    """Zeroes its gradients with every third batch only."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if batch_idx % 3 == 0:
            optimizer.zero_grad()


class Looking(Seen):
    """Records the gradients of the previous batch."""

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        self.events.append([digest(it.grad) for it in self.parameters() if it.grad is not None])


class LookingOn(L.Callback):
    def on_before_zero_grad(self, trainer: L.Trainer, module: Seen, optimizer: torch.optim.Optimizer) -> None:
        Looking.on_before_zero_grad(module, optimizer)


class Stuck(Seen):
    """Logs a score that never improves."""

    def on_validation_epoch_end(self) -> None:
        self.log("score", 1.0)
