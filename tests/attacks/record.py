"""What a child had saved when it was killed, by its record of calls."""

from __future__ import annotations

from pathlib import Path


def saved(record: Path) -> list[str]:
    """The files that got their final name, by a record of calls, in order."""
    if not record.exists():
        return []
    lines = [line.split(" ") for line in record.read_text().splitlines()]
    named = [Path(line[-1]) for line in lines if line[1] in ("link", "replace")]
    return [path.name for path in named if path.suffix == ".ckpt" and not path.name.startswith(("last", "best."))]
