"""The smallest parts of a report: escaped elements, numbers in words, axes."""

from __future__ import annotations

import math

import pytest

from checkpointable.catalog import words
from checkpointable.catalog.report.markup import Html, element, joined
from checkpointable.catalog.report.scale import scale_of


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (0.12, 0.31, ["0.15", "0.20", "0.25", "0.30"]),
        (-1, 1, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (0, 12_000, ["0", "5,000", "10,000"]),
        (1.2e-7, 3.1e-7, ["1.5e-07", "2e-07", "2.5e-07", "3e-07"]),
    ],
)
def test_ticks_are_round_and_lie_within(low: float, high: float, labels: list[str]) -> None:
    assert [label for _, label in scale_of(low, high).ticks()] == labels


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.0), (5.0, 5.0), (1e16, 1e16 + 2), (-1e299, 1e299), (5e-324, 1e-323), (1e-310, 1.0), (-3.0, -3.0)],
)
def test_ticks_of_extreme_values_are_few_and_lie_on_the_axis(low: float, high: float) -> None:
    scale = scale_of(low, high)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 11
    assert all(0 <= scale.at(value) <= 1 and math.isfinite(scale.at(value)) for value, _ in ticks)


def test_ticks_of_batches_are_whole() -> None:
    assert [label for _, label in scale_of(0, 3).ticks(whole=True)] == ["0", "1", "2", "3"]


def test_element_escapes_texts_and_attributes_and_leaves_elements() -> None:
    inner = element("b", "<&>")
    assert element("i", inner, None, " x", title='"', hidden=True, class_=None) == (
        '<i title="&quot;" hidden><b>&lt;&amp;&gt;</b> x</i>'
    )
    assert joined(["<", Html("<br>")], between="&") == "&lt;&amp;<br>"
    assert not isinstance(f"{inner}", Html)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0041, "4.1 ms"),
        (12.34, "12.3 s"),
        (300, "5 min 00 s"),
        (61, "1 min 01 s"),
        (0, "0 s"),
        (7500, "2 h 05 min"),
        (4 * 86400, "4 days 0 h"),
    ],
)
def test_duration_is_in_words(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_duration_that_is_none_is_unknown(seconds: float) -> None:
    assert words.duration(seconds) == "unknown"
    assert words.moment(seconds) == "unknown"
