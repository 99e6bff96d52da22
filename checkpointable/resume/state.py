"""What a checkpoint holds under the key ``"checkpointable"``: where the run stood, and what each rank needs to resume.

Plain containers, numbers, strings and tensors only, so that ``torch.load(weights_only=True)`` always reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from checkpointable._errors import ResumeError
from checkpointable._version import __version__
from checkpointable.policy.as_builtin import from_builtin
from checkpointable.policy.lineage import Lineage
from checkpointable.policy.log_state import LogState
from checkpointable.policy.position import Ended, Position
from checkpointable.resume.packing import Packer, unpack

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class OrderRng:
    """The states from which a pass draws the order of its samples; see ``rng``, ``owned_rng`` and ``sampler_state``."""

    global_rng: Mapping[str, Any]
    own_rng: Mapping[str, Any]
    held: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """From which order the samples of a pass are dealt to the ranks; see ``dealing``.

    Attributes:
        samples: Of the data set.
        shuffled: Whether the order is a permutation.
        seed: From which ``DistributedSampler`` draws it; ``None``: it is drawn from the global generators.
        taken: Samples from the beginning of the order that other numbers of ranks have trained in this pass.
        batches: The number of batches for which these stand, as Lightning counts now.
    """

    samples: int
    shuffled: bool
    seed: int | None = None
    epoch: int = 0
    taken: int = 0
    batches: int = 0


@dataclass(frozen=True, kw_only=True)
class LoaderState:
    """Where one loader stands; see ``LoaderPosition``.

    Attributes:
        passes: Passes begun, this one included.
        starts: Passes begun since the loop's own pass began: a shorter loader may start over in between.
        delivered: Batches delivered in this pass.
        exhausted: Whether this pass has ended.
        worker_seed: The number from which the seeds of this pass's batches are derived.
        pass_start_rng: States of the loader's own generators when this pass began.
        iterator_rng: States of the global generators when the iterator was made.
        order_rng: ``None`` before the order is drawn.
        fetch_rng: States of the global generators before the batch that Lightning fetches ahead, if it does.
        own_rng: Present states of the loader's own generators.
        held: What samplers hold besides generators, as far as it has changed.
        held_digests: Digests of all that they hold.
        held_unknown: What they hold that cannot be saved.
        sampler: Class names of what orders the samples.
        samples: How many samples a data set with an index has, and its class.
        data_digests: Digests of the indices, weights and tensors that torch's data sets and samplers hold.
        length: Batches in a pass, as the loader says.
        full: Batches in the latest pass that came to its end.
        dealt: How its samples are dealt to the ranks; ``None`` if that is not known.
        own_state: What the ``state_dict`` of the loader, or of its data set, gave.
        in_step: Whether its iterator drew one batch of indices for each batch; ``None`` if it draws none of ours.
        first_draws: Whether its first batch drew from the global generators, where the order may be drawn with it.
        has_late_generators: Whether workers made random generators only at their first batch.
        shared: The generators of its order that something else has drawn from in this pass, between two batches.
    """

    passes: int
    starts: int
    delivered: int
    exhausted: bool
    worker_seed: int
    pass_start_rng: Mapping[str, Any]
    iterator_rng: Mapping[str, Any] | None
    order_rng: OrderRng | None
    fetch_rng: Mapping[str, Any] | None
    own_rng: Mapping[str, Any]
    held: Mapping[str, Any]
    held_digests: Mapping[str, str]
    held_unknown: Sequence[str]
    sampler: str
    samples: str
    data_digests: Mapping[str, str]
    has_workers: bool
    length: int | None
    full: int | None
    batch_size: int | None
    dealt: Dealt | None
    own_state: Any
    in_step: bool | None
    first_draws: bool | None
    has_late_generators: bool
    shared: Sequence[str]

    @property
    def has_ended(self) -> bool:
        """Whether no batch of this pass is left. Lightning does not ask a loader with a length for one more."""
        return self.exhausted or (self.length is not None and self.delivered >= self.length)


@dataclass(frozen=True, kw_only=True)
class RankState:
    """What one process needs to resume the same run. A checkpoint has one for each rank.

    Attributes:
        random: The states of the global generators; see ``rng``.
        seed: What ``seed_everything`` was given.
        logged: Lightning's running means of logged values, and the values that loggers and callbacks see.
        metrics: The states of the ``torchmetrics`` metrics in the module, by name.
        buffers: Of the module, where each rank has its own; see ``rank_buffers``.
        generators: The states of the random generators in the module; see ``module_rng``.
    """

    random: Mapping[str, Any]
    seed: str | None
    training: tuple[LoaderState, ...]
    validation: tuple[LoaderState, ...]
    logged: Mapping[str, Any]
    metrics: Mapping[str, Any]
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    generators: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GradientSums:
    """In which order DDP sums gradients over three or more ranks; see ``gradient_sums``.

    Attributes:
        made: How DDP was made, in words.
        buckets: Its sorted buckets, the indices of their parameters; empty if it has not sorted them.
        unknown: Why the order cannot be known; ``""`` if it is.
    """

    made: str = ""
    buckets: Sequence[Sequence[int]] = ()
    unknown: str = ""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stood when a checkpoint was saved.

    Attributes:
        run_id: The run, the same over all its resumes.
        ended: What had just ended; ``None`` if it was not saved at a safe point, but by the user or another callback.
        before_validation: Whether the validation that the last batch triggers is still to come.
        best_val_loss: Lowest ``val_loss`` so far.
        seconds: Training time since the last save that ``train_time_interval`` asked for.
        gradients: Of an accumulation window that has not ended, by parameter name.
        stepped: In manual optimization: whether an optimizer has ever stepped, and whether one did in the last batch.
        settings: How it is trained; see ``settings.settings_of``.
        made: The numbers of optimizers and schedulers as they were made; see ``script_values.made``.
        parameters: The names and shapes of the optimizers' parameters; see ``parameter_names``.
        module_modes: Which parameters are frozen and which modules are in evaluation mode; see ``module_state``.
        initial_modes: The same before any hook of the fit that saved it.
        stopped_early: Whether an ``EarlyStopping`` had ended the training.
        reloaded_epochs: The epochs in which the loaders of training and validation were made.
        fetching: Whether an exception was raised while the next batch was fetched.
        logged_names: Names of everything logged so far where ``monitor`` is read.
        found: What Lightning's finders of a learning rate and a batch size have found, by attribute.
        sums: How gradients are summed over the ranks; ``None`` for one or two.
        left_out: The type and checksum of each weight that is not in the file; see ``frozen_part``.
        loggers: Where the run was logged; see ``lightning_internals.loggers``.
        skipped: Whether the rest of its epoch is skipped, as the data come from the script; never set in a file.
        ranks: Empty in a file that holds weights only. While it is made, ranks other than 0 have their own alone.
    """

    run_id: str
    lineage: Lineage
    position: Position
    ended: Ended | None
    best_val_loss: float
    before_validation: bool = False
    seconds: float = 0.0
    gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    stepped: Sequence[bool] = (False, False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    parameters: Sequence[Any] = ()
    module_modes: Mapping[str, Any] = field(default_factory=dict)
    initial_modes: Mapping[str, Any] = field(default_factory=dict)
    stopped_early: bool = False
    reloaded_epochs: Mapping[str, float] = field(default_factory=dict)
    fetching: bool = False
    logged_names: Sequence[str] = ()
    found: Mapping[str, float] = field(default_factory=dict)
    sums: GradientSums | None = None
    left_out: Mapping[str, Any] = field(default_factory=dict)
    loggers: Sequence[LogState] = ()
    skipped: bool = False
    ranks: tuple[RankState, ...] = ()
    format: int = FORMAT

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> RunState:
        """The state that ``as_builtin`` was given.

        Raises:
            ResumeError: If it was written by a later version of the library.
        """
        if saved["format"] > FORMAT:
            raise ResumeError(
                f"cannot read the state in this checkpoint: it has format {saved['format']}, and checkpointable"
                f" {__version__} knows up to {FORMAT}. Upgrade: pip install --upgrade checkpointable."
            )
        state = from_builtin(cls, saved)
        return replace(state, ranks=tuple(_with_states(rank, unpack) for rank in state.ranks))


def packed(ranks: Sequence[RankState]) -> tuple[RankState, ...]:
    """The states of all ranks with their random states packed, as they are in a file; see ``packing``."""
    pack = Packer().pack
    return tuple(_with_states(rank, pack) for rank in ranks)


def _with_states(rank: RankState, change: Callable[[Any], Any]) -> RankState:
    def changed(loader: LoaderState) -> LoaderState:
        order, names = loader.order_rng, ("pass_start_rng", "iterator_rng", "fetch_rng", "own_rng", "held")
        states = {name: change(getattr(loader, name)) for name in names}
        states["order_rng"] = None if order is None else OrderRng(**change(vars(order)))
        return replace(loader, **states)

    training, validation = (tuple(map(changed, loaders)) for loaders in (rank.training, rank.validation))
    own = {"random": change(rank.random), "generators": change(rank.generators)}
    return replace(rank, **own, training=training, validation=validation)
