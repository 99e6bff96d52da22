"""Arguments of a constructor that nothing takes: an error names them, and the known one that was meant."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from checkpointable._errors import UnknownArgumentError


@contextlib.contextmanager
def naming_unknown_arguments(cls: type, given: Iterable[str]) -> Iterator[None]:
    """While the next class in line gets these arguments: say it in the user's words if it knows one of them not.

    Raises:
        UnknownArgumentError: In the place of a ``TypeError`` that names a base class which the user never wrote.
    """
    try:
        yield
    except TypeError as error:
        bases = {base.__qualname__ for base in cls.__mro__}
        by_position = re.match(r"(.+)\.__init__\(\) takes 1 positional argument", str(error))
        if by_position is not None and by_position[1] in bases:
            raise _by_position(cls) from error
        found = re.match(r"(.+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if found is None or found[2] not in given or found[1] not in bases:
            raise
        raise _unknown(cls, found[2]) from error


def refuse_unknown_arguments(cls: type, args: Sequence[Any], kwargs: Iterable[str]) -> None:
    """Refuse what a class got beside its own arguments, where no base class takes any.

    Raises:
        UnknownArgumentError: If there is anything.
    """
    if args:
        raise _by_position(cls)
    for name in kwargs:
        raise _unknown(cls, name)


def _by_position(cls: type) -> UnknownArgumentError:
    return UnknownArgumentError(
        f"{cls.__name__} got an argument by position that no base class takes. Pass arguments by name, such as"
        " dirpath='runs' or save_interval=100."
    )


def _unknown(cls: type, name: str) -> UnknownArgumentError:
    taken = {it: None for base in cls.__mro__ if "__init__" in vars(base) for it in _named(base)}
    close = difflib.get_close_matches(name, taken, n=1)
    cure = f". Did you mean {close[0]!r}?" if close else f". It takes {', '.join(taken)}."
    if name in _INSTEAD:
        cure = f": {_INSTEAD[name]}"
    return UnknownArgumentError(f"{cls.__name__} takes no argument {name!r}{cure}")


_INSTEAD = {  # arguments of ModelCheckpoint, past and present, and one of CheckpointingModule
    "verbose": "Checkpoints(dirpath) lists what was saved. Leave the argument out.",
    "enable_version_counter": "files of other runs are never overwritten, a taken name gets -v1. Leave it out.",
    "period": "pass every_n_epochs. The best is judged after each validation.",
    "every_n_val_epochs": "pass every_n_epochs. The best is judged after each validation.",
    "every_n_batches": "pass save_interval, in batches.",
    "prefix": "write it into the templates: filename='run1_{epoch}_{batch}', and best_filename.",
    "filepath": "pass its directory as dirpath, and its name as filename.",
    "save_best_only": "pass save_interval=None and save_last=False; save_top_k says how many of the best are kept.",
    "learning_rate": "it belongs to CheckpointingModule's default optimizer. Set self.learning_rate, and use it in"
    " configure_optimizers.",
}


def _named(cls: type) -> list[str]:
    """The arguments of the constructor that can be given by name."""
    parameters = list(inspect.signature(vars(cls)["__init__"]).parameters.values())[1:]
    return [it.name for it in parameters if it.kind in (it.KEYWORD_ONLY, it.POSITIONAL_OR_KEYWORD)]
