"""Which arguments a module saves as its hyper-parameters: its author's, not this library's."""

from __future__ import annotations

import inspect
from typing import Any

from checkpointable.policy.options import Options

_OWN = frozenset((*Options.__dataclass_fields__, "learning_rate"))


def not_the_authors(module: Any, listed: tuple[Any, ...]) -> list[str]:
    """The names of our arguments that ``save_hyperparameters(*listed)`` leaves out.

    They are all but those that an ``__init__`` of the author names, and those that are saved already. Where names or
    values are listed, these are what is saved.
    """
    if listed:
        return []
    inits = [vars(base)["__init__"] for base in type(module).__mro__ if "__init__" in vars(base) and not _is_ours(base)]
    named = {name for init in inits for name in inspect.signature(init).parameters}
    return sorted(_OWN - named - set(module.hparams))


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]
