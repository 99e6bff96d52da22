"""What a resume may take from the script, by the words of ``from_script``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class Part(StrEnum):
    """A part of a run that comes from the script on request, and otherwise from the file."""

    LEARNING_RATE = "learning_rate"
    LR_SCHEDULERS = "lr_schedulers"
    OPTIMIZERS = "optimizers"
    DATA = "data"
    RANDOMNESS = "randomness"
    CALLBACKS = "callbacks"


NUMBERS = frozenset({Part.LEARNING_RATE, Part.OPTIMIZERS})  # these take the numbers of the parameter groups


def are_parts(value: Any) -> bool:
    """Whether it is one of these words, or a sequence of them."""
    words = [value] if isinstance(value, str) else value
    is_several = isinstance(words, (Sequence, set, frozenset)) and not isinstance(words, bytes)
    return is_several and all(isinstance(word, str) and word in list(Part) for word in words)


def parts_of(value: str | Sequence[str]) -> frozenset[Part]:
    """The parts that these words name."""
    return frozenset(map(Part, [value] if isinstance(value, str) else value))
