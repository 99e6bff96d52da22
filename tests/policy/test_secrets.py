"""What a command line says of secrets is not written into files."""

from __future__ import annotations

import pytest

from checkpointable.policy.secrets import without_secrets, without_secrets_in


@pytest.mark.parametrize(
    "words",
    [
        ["--api-key", "SECRET"],
        ["--api_key=SECRET"],
        ["-API_KEY=SECRET"],
        ["--hf-token", "SECRET", "SECRET"],
        ["--password", "-SECRET"],
        ["logger.wandb.api_key=SECRET"],
        ["+logger.password=a SECRET, with=everything&after"],
        ["--url=https://user:SECRET@host/path"],
        ["https://host/?access_token=SECRET&page=1"],
        ["{api_key: SECRET, x: 1}"],
        ['--config={"client_secret": "SECRET", "b": 2}'],
        ["AWS_SECRET_ACCESS_KEY=SECRET"],
    ],
)
def test_value_of_a_secret_is_hidden_in_each_way_to_give_one(words):
    shown = without_secrets(["train.py", *words, "--lr", "0.1"])
    assert "SECRET" not in " ".join(shown).replace("AWS_SECRET_ACCESS_KEY", "")
    assert "***" in " ".join(shown)
    assert (shown[0], *shown[-2:]) == ("train.py", "--lr", "0.1")


def test_command_without_secrets_is_as_it_was():
    words = ("train.py", "--lr", "0.1", "model.width=3", "s3://bucket/run", "key", "--dry-run", "a:b")
    assert without_secrets(words) == words


def test_text_of_an_exception_keeps_its_words_and_loses_what_is_assigned():
    assert without_secrets_in("Missing key: 'net.weight'") == "Missing key: 'net.weight'"
    assert (
        without_secrets_in("401 for http://me:pw@host/?token=abc, again") == "401 for http://***@host/?token=***, again"
    )


def test_long_words_and_texts_are_cut_before_they_are_searched():
    """Of a word of a million characters, the search would take minutes."""
    assert [len(word) for word in without_secrets(["train.py", "x" * 1_000_000])] == [8, 1000]
    assert len(without_secrets_in("a" * 1_000_000)) == 1000
