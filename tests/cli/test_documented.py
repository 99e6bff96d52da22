"""``docs/reference/cli.md`` names every command, option and key of an answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli import made

from checkpointable.cli.parser import tree

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
KEYS = PAGE.partition("## For programs")[2].partition("## ")[0]
LINES = {
    "show": ["a"],
    "ls": ["a"],
    "verify": ["a"],
    "diff": ["a", "a"],
    "export": ["a", "-o", "out.pt"],
    "average": ["a/1.ckpt", "a/epoch_6_batch_0.ckpt", "-o", "mean.pt"],
    "prune": ["a"],
    "doctor": ["a"],
    "resume": ["a", "--dry-run"],
}


def test_page_names_every_command_and_option():
    for it in tree()[1]:
        assert re.search(rf"^\| `{it.name}\b", PAGE, re.MULTILINE), it.name
        for action in it.actions:
            assert not action.option_strings or any(option in PAGE for option in action.option_strings)


@pytest.mark.parametrize("name", LINES)
def test_page_names_the_keys_of_an_answer(name, command, tmp_path):
    made.killed_run(tmp_path / "a")
    made.write(tmp_path / "a" / "1.ckpt", contents=made.WEIGHTS, score=1.0, at=made.at(1), **made.FIRST)
    answer = command(name, *LINES[name], "--json").json
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", KEYS, re.MULTILINE)
    outer = re.sub(r"\([^)]*\)", "", row)
    assert set(re.findall(r"`(\w+)`", outer)) == answer.keys() - {"format", "command", "exit_code"}
    for parent, inner in re.findall(r"`(\w+)` \((`[^)]*)\)", row):
        found = answer[parent]
        one = found if isinstance(found, dict) and name == "show" else next(iter(found), None)
        if isinstance(one, dict):
            assert set(re.findall(r"`(\w+)`", inner)) == one.keys()


def test_page_names_the_keys_of_a_checkpoint(command, tmp_path):
    made.killed_run(tmp_path / "a")
    one = command("ls", "a", "--json").json["checkpoints"][0]
    described = re.search(r"^A checkpoint has (.*?), with the meanings", KEYS, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", described[1])) == one.keys()
