"""``checkpointable diff``: how two checkpoints differ."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.cli import words
from checkpointable.cli.checkpoints import as_json, best_or_newest
from checkpointable.cli.screen import CAREFUL, GOOD, QUIET, TITLE, Part, Screen
from checkpointable.policy.names import KEY

if TYPE_CHECKING:
    from checkpointable.cli.differences import Difference

_MOST_LINES = 15  # of one section, without --all
_SETTINGS = ("settings", "made", "parameters")
_OPTIMIZERS = ("optimizer_states", "lr_schedulers")


def run(args: Namespace, screen: Screen) -> int:
    """Compare two checkpoints; 1 if they differ in what is looked at."""
    from checkpointable.cli import differences, loaded

    infos = [best_or_newest([path], last=True).info for path in (args.one, args.other)]
    assert infos[0] is not None
    assert infos[1] is not None
    one, other = (_sections(loaded.load(info), args.all) for info in infos if info is not None)
    found = {title: list(differences.differences(one[title], other[title])) for title in one}
    total = sum(map(len, found.values()))
    screen.answer |= {"a": as_json(infos[0]), "b": as_json(infos[1]), "differences": total}
    screen.answer["sections"] = {title: [vars(it) for it in section] for title, section in found.items()}
    screen.table([_of_side("A", infos[0], screen.mark), _of_side("B", infos[1], screen.mark)])
    for title, section in found.items():
        _show(title, section, len(one[title]), args.all, screen)
    if not args.all:
        screen.text("Not compared: what only a resume needs (loops, callbacks, randomness); --all does.", style=QUIET)
    return 1 if total else 0


def _sections(checkpoint: Mapping[str, Any], everything: bool) -> dict[str, Mapping[str, Any]]:
    """The contents, by what people look for."""
    ours = checkpoint.get(KEY, {})
    parameters = {name: it for name, it in checkpoint.items() if name.endswith("hyper_parameters")}
    found = {
        "weights": checkpoint["state_dict"],
        "hyper-parameters": next(iter(parameters.values())) if len(parameters) == 1 else parameters,
        "settings": {name: it for part in _SETTINGS[:1] for name, it in ours.get(part, {}).items()},
        "optimizers": _optimizers(checkpoint),
    }
    if everything:
        shown = {"state_dict", *_OPTIMIZERS, *parameters}
        rest = {name: it for name, it in checkpoint.items() if name not in shown}
        rest[KEY] = {name: it for name, it in ours.items() if name != "settings"}
        found["everything else"] = rest
    return found


def _optimizers(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The states of optimizers and schedulers; one of a kind goes without a number."""
    found: dict[str, Any] = {}
    for key, title in zip(_OPTIMIZERS, ("optimizer", "scheduler"), strict=True):
        states: Sequence[Any] = checkpoint.get(key, [])
        found |= {f"{title}{number if len(states) > 1 else ''}": state for number, state in enumerate(states)}
    return found


def _of_side(side: str, info: CheckpointInfo, mark: str) -> list[Part]:
    return [(side, TITLE), words.kind(info), str(info.at), words.score(info, mark), info.path]


def _show(title: str, section: list[Difference], compared: int, everything: bool, screen: Screen) -> None:
    if not section:
        same = f"the same ({compared})" if compared else "none in either"
        screen.line((title, TITLE), ": ", (same, GOOD if compared else QUIET))
        return
    screen.line((title, TITLE), ": ", (words.counted(len(section), "difference"), CAREFUL))
    shown = section if everything else section[:_MOST_LINES]
    tensors = [[f"  {it.name}", *_by_how_much(it)] for it in shown if it.elements is not None]
    screen.table(tensors, shrink=0, right=(1,), spare=(4, 1))
    screen.table([[f"  {it.name}", _how(it)] for it in shown if it.elements is None], shrink=0)
    if len(section) > len(shown):
        screen.line((f"  and {len(section) - len(shown):,} more; --all prints them", QUIET))


def _by_how_much(it: Difference) -> list[Part]:
    """How many elements of two like tensors differ, where most, by how much, and what is there."""
    count, of = it.elements or (0, 0)
    if it.at is None:
        return [f"{count:,} of {of:,}", "", "by nothing", "they are the same numbers in other bits"]
    where = f"most at {list(it.at)}" if it.at else ""
    return [f"{count:,} of {of:,}", where, f"by {it.largest:.3g}", f"{it.one} -> {it.other}"]


def _how(it: Difference) -> str:
    if it.one is None or it.other is None:
        return f"only in {'A' if it.other is None else 'B'}: {it.one or it.other}"
    return f"{it.one} -> {it.other}"
