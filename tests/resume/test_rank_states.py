"""What each rank resumes from, on as many ranks as saved and on others."""

from __future__ import annotations

import random

import torch

from checkpointable.policy.lineage import Lineage
from checkpointable.policy.position import Ended, Position
from checkpointable.resume import rank_states, rng
from checkpointable.resume.state import RankState, RunState


def state(ranks: int) -> RunState:
    logged = {"means": {"loss": {}}, "shown": {}}
    parts = {"seed": "5", "training": (), "validation": (), "logged": logged, "metrics": {}}
    of_rank = [RankState(random=rng.seeded(number, like=rng.capture()), **parts) for number in range(ranks)]
    position = Position()
    return RunState(
        run_id="r",
        lineage=Lineage.begin(),
        position=position,
        ended=Ended.BATCH,
        best_val_loss=1.0,
        ranks=tuple(of_rank),
    )


def drawn(saved: RankState) -> list[float]:
    with rng.isolated(saved.random):
        return [random.random(), float(torch.rand(()))]


def test_rank_on_as_many_ranks_as_saved_resumes_from_its_own_state():
    saved = state(2)
    assert rank_states.for_rank(saved, 1, 2) is saved.ranks[1]
    assert not list(rank_states.verdicts(saved, 1, 2, Ended.BATCH, is_dealt=False))


def test_new_rank_takes_over_the_seed_of_the_run_and_draws_numbers_of_its_own():
    saved = state(2)
    resumed = [rank_states.for_rank(saved, rank, 4) for rank in range(4)]
    assert {it.seed for it in resumed} == {"5"}
    assert len({tuple(drawn(it)) for it in resumed}) == 4


def test_new_rank_draws_the_same_numbers_in_each_resume():
    saved = state(1)
    first = drawn(rank_states.for_rank(saved, 1, 2))
    torch.manual_seed(99), random.seed(99)
    assert drawn(rank_states.for_rank(saved, 1, 2)) == first


def test_running_means_begin_anew_on_another_number_of_ranks_and_the_verdict_says_so():
    saved = state(2)
    assert rank_states.for_rank(saved, 0, 1).logged["means"] == {}
    said = [str(verdict) for verdict in rank_states.verdicts(saved, 0, 1, Ended.BATCH, is_dealt=True)]
    assert said[0] == "which rank sees which sample: approximate (2 ranks when saved, 1 now)"
    assert said[1].startswith("means of logged values: approximate")
    assert len(list(rank_states.verdicts(saved, 0, 1, Ended.EPOCH, is_dealt=False))) == 1


def test_position_that_is_not_dealt_to_other_ranks_is_approximate():
    said = [str(verdict) for verdict in rank_states.verdicts(state(1), 1, 2, Ended.BATCH, is_dealt=False)]
    assert [line.partition(":")[0] for line in said] == [
        *("which rank sees which sample", "rank 1", "position in the data", "means of logged values")
    ]


def test_file_without_the_state_of_any_rank_gives_none():
    assert rank_states.for_rank(state(0), 0, 1) is None
