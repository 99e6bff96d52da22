"""Which bytes of the late copies a save compares to the last bit: each save a part, so that each byte has its turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SAVES = 64  # in which all bytes have their turn, if a part is not larger than the following
_LEAST, MOST = 1 << 16, 1 << 22  # bytes in a part: it is copied while training waits


@dataclass(eq=False)
class Rotation:
    """The place at which the next part begins, in all late copies one after the other."""

    _at: int = 0

    def next_part(self, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Where the next part begins and ends in each of the copies of these sizes in bytes; equal: it has none.

        Without copies it stays where it is: a save of the best may come between any two others.
        """
        if not sizes:
            return
        total = sum(sizes)
        first = self._at if self._at < total else 0
        last = min(first + min(max(-(-total // _SAVES), _LEAST), MOST), total)
        self._at = last
        begin = 0
        for size in sizes:
            start = min(max(first - begin, 0), size)
            yield start, max(min(last - begin, size), start)
            begin += size
