"""What is wrong with each of several checkpoints, and a progress bar while many bytes are read."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator

from checkpointable.catalog.info import CheckpointInfo

_SHOWS_PROGRESS_BYTES = 1_000_000_000


class Verification(dict[str, str | None]):
    """What is wrong with each file, by its path; ``None`` for an intact one. Its text counts and names them."""

    @property
    def damaged(self) -> dict[str, str]:
        """What is wrong with the damaged ones, by path."""
        return {path: problem for path, problem in self.items() if problem is not None}

    def __repr__(self) -> str:
        return "\n".join([self._counts(), *(f"  {path}: {problem}" for path, problem in self.damaged.items())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(path)}</td><td>{html.escape(why)}</td></tr>" for path, why in self.damaged.items()
        )
        return f"<p>{self._counts()}</p>" + (f"<table><tbody>{rows}</tbody></table>" if rows else "")

    def _counts(self) -> str:
        damaged = len(self.damaged)
        if not self:
            return "no checkpoints"
        intact = f"{len(self) - damaged} intact"
        return f"{intact}, {damaged} damaged:" if damaged else intact


def with_bar(infos: list[CheckpointInfo]) -> Iterator[CheckpointInfo]:
    """Hand them out one after another. A bar shows how many bytes were read, where they are many and it is seen."""
    total = sum(info.size for info in infos)
    if total <= _SHOWS_PROGRESS_BYTES or not is_watched():
        yield from infos
        return
    from tqdm.std import tqdm  # Lightning brings it

    with tqdm(total=total, unit="B", unit_scale=True, desc="verifying", leave=False) as bar:
        for info in infos:
            yield info
            bar.update(info.size)


def is_watched() -> bool:
    """Whether a person sees what is written to standard error: on a terminal, or in a notebook."""
    shell = sys.modules.get("IPython")
    kernel = None if shell is None else shell.get_ipython()
    return sys.stderr.isatty() or type(kernel).__name__ == "ZMQInteractiveShell"
