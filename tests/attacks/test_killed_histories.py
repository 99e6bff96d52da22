"""Histories of a directory whose processes are killed by SIGKILL: it holds what the model of ``tests/model`` says."""

from __future__ import annotations

import pytest

HISTORIES = "model.forking:histories"


def test_histories_with_real_kills_hold_what_the_model_says(forge):
    ended = forge.run(HISTORIES, count=2, steps=12)
    assert ended.code == 0, ended.errors
    assert ended.result >= 1


@pytest.mark.sweep
def test_sweep_of_fifty_real_kills_in_histories(forge):
    ended = forge.run(HISTORIES, count=150, steps=40)
    assert ended.code == 0, ended.errors
    assert ended.result >= 50
