"""Arguments that the constructor gets: ours, those of the next class in line, and those that nobody takes."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
from nets import MixedNet, Net

from checkpointable import CheckpointingMixin, PolicyError


class Sized(L.LightningModule):
    """Has arguments of its own, and takes any other, too."""

    def __init__(self, size: int, *, depth: int = 1, **settings: Any) -> None:
        super().__init__()
        self.given = (size, depth, settings)


class MixedSized(CheckpointingMixin, Sized):
    """The mixin in front of it."""


class MixedSmall(CheckpointingMixin, L.LightningModule):
    """Has no constructor of its own."""


class Strict(L.LightningModule):
    """Has arguments of its own, and hands the rest on."""

    def __init__(self, *args: Any, hidden_size: int = 8, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hidden_size = hidden_size


class MixedStrict(CheckpointingMixin, Strict):
    """The mixin in front of it."""


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: Net(save_intervall=3), r"^Net takes no argument 'save_intervall'\. Did you mean 'save_interval'\?$"),
        (lambda: Net(learning_rat=3), r"^Net takes no argument 'learning_rat'\. Did you mean 'learning_rate'\?$"),
        (lambda: MixedStrict(hiden_size=3), r"^MixedStrict .* 'hiden_size'\. Did you mean 'hidden_size'\?$"),
        (lambda: MixedNet(hidden_size=3), r"^MixedNet takes no argument 'hidden_size'\. It takes save_interval, "),
        (lambda: Net(zzzzzz=3), r"^Net takes no argument 'zzzzzz'\. It takes learning_rate, save_interval, .*\.$"),
        (
            lambda: MixedNet(learning_rate=0.1),
            r"'learning_rate': it belongs to CheckpointingModule's .*configure_optim",
        ),
        (lambda: Net(verbose=True), r"^Net takes no argument 'verbose': .* Leave the argument out\.$"),
        (lambda: Net(enable_version_counter=False), r"'enable_version_counter': .* a taken name gets -v1"),
        (lambda: Net(period=2), r"'period': pass every_n_epochs"),
        (lambda: MixedSmall("runs"), r"^MixedSmall got an argument by position.*by name, such as dirpath='runs'"),
    ],
)
@pytest.mark.parametrize("error", [PolicyError, TypeError])
def test_argument_that_nobody_takes_is_refused_with_the_closest_one(make, advice, error):
    with pytest.raises(error, match=advice):
        make()


def test_arguments_of_the_next_class_in_line_reach_it():
    assert MixedSized(5, depth=3, colour="red", save_interval=7).given == (5, 3, {"colour": "red"})
    assert MixedStrict(hidden_size=3, save_interval=7).hidden_size == 3


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: MixedSized(), r"^Sized\.__init__\(\) missing 1 required positional argument: 'size'"),
        (lambda: MixedSized("a", size="b"), r"^Sized\.__init__\(\) got multiple values for argument 'size'"),
    ],
)
def test_other_mistakes_with_arguments_are_told_as_python_tells_them(make, problem):
    with pytest.raises(TypeError, match=problem):
        make()


def test_argument_that_something_else_inside_refuses_is_not_said_to_be_the_modules():
    class Part:
        def __init__(self, width: int) -> None:
            self.width = width

    class Base(L.LightningModule):
        def __init__(self, **settings: Any) -> None:
            super().__init__()
            self.part = Part(**settings)

    class Mixed(CheckpointingMixin, Base):
        pass

    with pytest.raises(TypeError, match=r"Part\.__init__\(\) got an unexpected keyword argument 'colour'"):
        Mixed(colour="red")
    assert Mixed(width=3).part.width == 3
