"""Tensors are copied while training goes on, and the file has the state of its safe point all the same.

What the state was at each safe point is noted. The copy is held up, so that whatever would come before it does.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from copying import WIDTH, Gate, Wide, fit, note_states, torn, without_the_detection, without_the_wait
from nets import files, loader, trainer
from torch.nn import functional as F

from checkpointable.saving.steps import changed_only_by_steps
from checkpointable.storage.staging import rotation


@pytest.fixture(autouse=True)
def gate(monkeypatch):
    return Gate(monkeypatch)


@pytest.fixture
def truth(monkeypatch):
    return note_states(monkeypatch)


class Momentum(Wide):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Manual(Wide):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.layer(batch[0]), batch[1]))
        self.step(optimizer, batch)

    def step(self, optimizer: Any, batch: Any) -> None:
        optimizer.step()


class ManualRaw(Manual):
    def step(self, optimizer: Any, batch: Any) -> None:
        optimizer.optimizer.step()


class ManualClosure(Manual):
    def step(self, optimizer: Any, batch: Any) -> None:
        def closure() -> torch.Tensor:
            with torch.enable_grad():
                loss = F.cross_entropy(self.layer(batch[0]), batch[1])
                optimizer.zero_grad()
                self.manual_backward(loss)
            return loss

        optimizer.step(closure=closure)


class ManualRawClosure(ManualClosure):
    def step(self, optimizer: Any, batch: Any) -> None:
        super().step(optimizer.optimizer, batch)


class Lbfgs(Wide):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


class ClosureFirst(Wide):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer_closure()
        optimizer.step()


class RawStep(Wide):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer_closure()
        optimizer.optimizer.step()


class Swapping(L.Callback):
    """Averages the weights, and swaps the averages in for validation and for the end of an epoch."""

    def __init__(self) -> None:
        self.average: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        weights = [weight.detach() for weight in pl_module.parameters()]
        self.average = self.average or [weight.clone() for weight in weights]
        torch._foreach_lerp_(self.average, weights, 0.1)

    def swap(self, trainer: Any, pl_module: Any) -> None:
        for weight, average in zip(pl_module.parameters(), self.average, strict=False):
            kept = weight.detach().clone()
            weight.data.copy_(average)
            average.copy_(kept)

    on_validation_epoch_start = on_validation_epoch_end = on_train_epoch_end = on_train_epoch_start = swap


TRAININGS: dict[str, tuple[type[Wide], dict[str, Any]]] = {
    "adam": (Wide, {}),
    "momentum": (Momentum, {}),
    "accumulating": (Wide, {"accumulate_grad_batches": 2}),
    "clipping": (Wide, {"gradient_clip_val": 0.1}),
    "manual": (Manual, {}),
    "manual, raw": (ManualRaw, {}),
    "manual, closure": (ManualClosure, {}),
    "manual, raw closure": (ManualRawClosure, {}),
    "lbfgs": (Lbfgs, {}),
    "closure first": (ClosureFirst, {}),
    "raw step": (RawStep, {}),
    "swapping": (Wide, {"callbacks": Swapping, "val_check_interval": 2}),
    "epochs": (Wide, {"callbacks": Swapping, "max_epochs": 3, "limit_train_batches": 2}),
}


@pytest.mark.parametrize("kind", TRAININGS)
def test_file_has_the_state_of_its_safe_point(tmp_path, truth, kind):
    cls, options = TRAININGS[kind]
    fit(cls(dirpath=tmp_path / "saved", every_n_epochs=1), tmp_path, **options)
    assert len(files(tmp_path / "saved")) >= 3
    assert torn(tmp_path / "saved", truth) == []


@pytest.mark.parametrize("kind", TRAININGS)
@pytest.mark.filterwarnings("ignore::checkpointable.CheckpointableWarning")
def test_no_torn_file_appears_where_nothing_waits_for_the_copy(tmp_path, truth, monkeypatch, kind):
    """A twin: what changed while it was copied is found, and not kept."""
    without_the_wait(monkeypatch)
    cls, options = TRAININGS[kind]
    fit(cls(dirpath=tmp_path / "saved", every_n_epochs=1), tmp_path, **options)
    assert torn(tmp_path / "saved", truth) == []


@pytest.mark.parametrize("kind", ["adam", "manual, raw", "swapping"])
def test_files_are_torn_where_nothing_waits_and_nothing_is_found(tmp_path, truth, monkeypatch, kind):
    """The twin of both."""
    without_the_wait(monkeypatch)
    without_the_detection(monkeypatch)
    cls, options = TRAININGS[kind]
    fit(cls(dirpath=tmp_path / "saved"), tmp_path, **options)
    assert torn(tmp_path / "saved", truth) != []


def test_large_tensors_are_copied_while_training_goes_on_and_small_ones_at_once(tmp_path, gate):
    fit(Wide(dirpath=tmp_path / "saved"), tmp_path)
    large = 4 * WIDTH * WIDTH
    own = 6  # two weights, with their moments
    later = sum(size for at_once, size in gate.copied if not at_once)
    assert later == (own * large - rotation._LEAST) * (len(files(tmp_path / "saved")) - 1), "but for what is compared"
    assert gate.copied.count((True, large)) == own, "the first save, which is watched"
    assert any(at_once for at_once, _ in gate.copied)


def test_best_and_last_states_are_copied_before_training_goes_on(tmp_path, gate):
    fit(Wide(dirpath=tmp_path / "saved", save_interval=None, save_top_k=-1), tmp_path, val_check_interval=1)
    assert len(files(tmp_path / "saved")) >= 3
    assert all(at_once for at_once, _ in gate.copied)


def test_tensors_changed_only_by_steps_are_those_of_the_optimizers_and_no_buffers(tmp_path):
    net = Wide(dirpath=tmp_path / "saved", save_last_k=1)
    own = trainer(tmp_path, max_steps=2)
    seen: list[int] = []

    class Looking(L.Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            seen.extend(tensor.data_ptr() for tensor in changed_only_by_steps(trainer))

    own.callbacks.append(Looking())
    own.fit(net, loader(4))
    assert {weight.data_ptr() for weight in net.parameters()} <= set(seen)
    assert {buffer.data_ptr() for buffer in net.buffers()}.isdisjoint(seen)
    assert len(seen) == 4 * len(list(net.parameters()))
