"""The attributes of a run on a module whose author may use the same names: then the author's are what the name means.

So they are no attributes of the class. ``__getattr__`` answers with them where the module has nothing of that name, and
``register_buffer`` and the like, which refuse a name that is taken, find it free.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from checkpointable.saving.run_attributes import RunAttributes

NAMES = frozenset(name for name, value in vars(RunAttributes).items() if isinstance(value, property))
_REGISTERING = "_checkpointing_registering"


def answers(module: Any, name: str) -> bool:
    """Whether the run's attribute is what a name means that the module itself has not."""
    return name in NAMES and module.__dict__.get(_REGISTERING) != name


def read(module: Any, name: str) -> Any:
    """The run's attribute."""
    value: property = vars(RunAttributes)[name]
    assert value.fget is not None
    return value.fget(module)


@contextlib.contextmanager
def free(module: Any, name: str) -> Iterator[None]:
    """While the module's author registers this name."""
    module.__dict__[_REGISTERING] = name
    try:
        yield
    finally:
        del module.__dict__[_REGISTERING]
