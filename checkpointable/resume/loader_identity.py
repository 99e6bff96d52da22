"""What a loader is, apart from where it stands: its sampler, and as far as they can be compared, its data.

Classes of torch hold nothing but data: the indices of a ``Subset``, which ``random_split`` draws, the weights of a
sampler, the tensors of a ``TensorDataset``. Attributes of other classes may be anything, and are not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from checkpointable.resume.sampler_state import digest_of

_DEEPEST = 6  # data sets in data sets
_SAMPLED = 1024  # elements of each tensor
_OF_SAMPLERS = ("indices", "weights", "replacement", "_num_samples", "shuffle")


def identity(loader: Any) -> dict[str, Any]:
    """The fields of ``LoaderState`` that describe a loader, which stay the same during a fit."""
    return {
        "sampler": _sampler_names(loader),
        "has_workers": getattr(loader, "num_workers", 0) > 0,
        "batch_size": getattr(loader, "batch_size", None),
        "samples": _samples(loader),
        "data_digests": dict(_digests(loader)) if isinstance(loader, DataLoader) else {},
    }


def length_of(loader: Any) -> int | None:
    """How many batches it has; ``None`` if it does not say."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def _sampler_names(loader: Any) -> str:
    """The class names of what orders a loader's samples."""
    batches: Any = getattr(loader, "batch_sampler", None)
    parts: list[Any] = [loader.sampler if batches is None else batches] if isinstance(loader, DataLoader) else []
    parts += [batches.sampler] if hasattr(batches, "sampler") else []
    return " of ".join(type(part).__name__ for part in parts)


def _samples(loader: Any) -> str:
    """How many samples a data set with an index has, and its class."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return ""
    return f"{length_of(loader.dataset)} samples of {type(loader.dataset).__name__}"


def _digests(loader: DataLoader[Any]) -> Iterator[tuple[str, str]]:
    ordering: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    for at, sampler in (("batch_sampler", ordering), ("sampler", getattr(ordering, "sampler", ordering))):
        if type(sampler).__module__.startswith("torch."):
            values = {name: vars(sampler)[name] for name in _OF_SAMPLERS if name in vars(sampler)}
            yield from ((f"{at}.{name}", digest_of(value)) for name, value in values.items())
    yield from _of_data("dataset", loader.dataset, _DEEPEST)


def _of_data(at: str, data: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Digests of what torch's classes hold, also in the data sets that are attributes of others."""
    if isinstance(data, Subset):
        yield f"{at}.indices", digest_of(data.indices)
    elif isinstance(data, TensorDataset):
        yield f"{at}.tensors", _sampled(data.tensors)
    if depth:
        for name, part in getattr(data, "__dict__", {}).items():
            parts = enumerate(part) if isinstance(part, (list, tuple)) and len(part) <= 64 else [("", part)]
            for number, it in parts:
                if isinstance(it, Dataset):
                    yield from _of_data(f"{at}.{name}.{number}".rstrip("."), it, depth - 1)


def _sampled(tensors: tuple[torch.Tensor, ...]) -> str:
    """A digest of some elements of each tensor, spread over all of it."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.layout == torch.strided and tensor.numel():
            flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach()[:_SAMPLED].reshape(-1)
            digest.update(digest_of(flat[:: -(-flat.numel() // _SAMPLED)].contiguous()).encode())
    return digest.hexdigest()
