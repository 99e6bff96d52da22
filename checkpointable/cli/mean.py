"""The mean of the weights of several checkpoints. Imports torch.

Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization" (arXiv:1803.05407): along one
run. Wortsman et al. 2022, "Model soups" (arXiv:2203.05482): of runs that began from the same pretrained weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from checkpointable._errors import CheckpointFileError
from checkpointable.cli.ties import originals


class Mean:
    """Adds up weights one checkpoint after the other, in 64 bits, so that only one of them is in memory beside the sum.

    Numbers that are no fractions, such as counters of batches, are those of the first checkpoint.

    Attributes:
        not_averaged: The names of these.
    """

    def __init__(self) -> None:
        self.not_averaged: list[str] = []
        self._first: dict[str, torch.Tensor] = {}
        self._originals: dict[str, str] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0
        self._path = ""

    def add(self, path: str, weights: Mapping[str, torch.Tensor]) -> None:
        """Take in one more checkpoint.

        Raises:
            CheckpointFileError: If its weights have other names, shapes or types than the first one's.
        """
        self._count += 1
        if self._count == 1:
            self._path, self._first, self._originals = path, dict(weights), originals(weights)
            self.not_averaged = [name for name, tensor in weights.items() if not _is_fraction(tensor)]
            once = set(self._originals.values()) - set(self.not_averaged)
            self._sums = {name: _wide(weights[name]).clone() for name in once}
            return
        self._refuse_others(path, weights)
        for name, total in self._sums.items():
            total += _wide(weights[name])

    def result(self) -> dict[str, torch.Tensor]:
        """The mean, in the types of the checkpoints. What was one tensor under several names still is."""
        means = {name: (total / self._count).to(self._first[name].dtype) for name, total in self._sums.items()}
        return {name: means.get(self._originals[name], tensor) for name, tensor in self._first.items()}

    @property
    def has_batch_norm(self) -> bool:
        """Whether there are running statistics, which are those of no model once they are averaged."""
        return any(name.rpartition(".")[2] in ("running_mean", "running_var") for name in self._first)

    def _refuse_others(self, path: str, weights: Mapping[str, torch.Tensor]) -> None:
        wrong = list(self._first.keys() ^ weights.keys())
        wrong += [
            name for name in self._first.keys() & weights.keys() if _kind(self._first[name]) != _kind(weights[name])
        ]
        if wrong:
            shown = ", ".join(sorted(wrong)[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            raise CheckpointFileError(
                f"cannot average {path} with {self._path}: they differ in the names, shapes or types of {shown}."
                " Pass checkpoints of one model."
            )


def _is_fraction(tensor: torch.Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and tensor.layout == torch.strided


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _kind(tensor: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype
