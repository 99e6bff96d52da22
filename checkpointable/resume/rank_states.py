"""The state from which each rank resumes, also on another number of ranks than the file was saved on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from checkpointable.policy.position import Ended
from checkpointable.policy.verdict import Level, Verdict
from checkpointable.resume import rng
from checkpointable.resume.state import RankState, RunState


def for_rank(state: RunState, rank: int, ranks: int) -> RankState | None:
    """What a rank of so many resumes from; ``None`` if the file has no state of any rank.

    A rank that the file does not have resumes from the state of rank 0, with random numbers of its own. They follow
    from those of rank 0, so that each resume from the file is the same. On another number of ranks the running means of
    logged values begin anew: Lightning refuses to continue them under another ``sync_dist``.
    """
    if not state.ranks:
        return None
    found = state.ranks[rank] if rank < len(state.ranks) else _of_new_rank(state.ranks[0], rank)
    return found if len(state.ranks) == ranks else replace(found, logged={**found.logged, "means": {}})


def verdicts(state: RunState, rank: int, ranks: int, ended: Ended | None, *, is_dealt: bool) -> Iterator[Verdict]:
    """How exactly a rank resumes on another number of ranks; none if the number is the same.

    ``is_dealt``: the rest of the interrupted pass is dealt to these ranks; see ``dealing``.
    """
    saved = len(state.ranks)
    if saved == ranks:
        return
    yield Verdict(
        "which rank sees which sample", Level.APPROXIMATE, f"{saved} rank{'s' * (saved > 1)} when saved, {ranks} now"
    )
    if rank >= saved:
        why = "it is not in the file, so that its random numbers follow from those of rank 0"
        yield Verdict(f"rank {rank}", Level.APPROXIMATE, why)
    if ended == Ended.BATCH and not is_dealt:
        why = "each rank skips as many batches as were trained: some samples are trained twice in this epoch, or never"
        yield Verdict("position in the data", Level.APPROXIMATE, why)
    if ended == Ended.BATCH:
        yield Verdict("means of logged values", Level.APPROXIMATE, "those of this epoch begin anew at the resume")


def _of_new_rank(first: RankState, rank: int) -> RankState:
    base = _digest(first.random)
    training, validation = (
        tuple(replace(loader, worker_seed=rng.derive_seed(loader.worker_seed, rank)) for loader in loaders)
        for loaders in (first.training, first.validation)
    )
    random = rng.seeded(rng.derive_seed(base, rank), like=first.random)
    return replace(first, random=random, training=training, validation=validation, metrics={}, generators={})


def _digest(state: Mapping[str, Any]) -> int:
    """A number of 63 bits that follows from the states of the generators."""
    parts = (repr(state["python"]).encode(), state["torch"].numpy().tobytes())
    return int.from_bytes(hashlib.sha256(b"".join(parts)).digest()[:8], "little") >> 1
