"""``checkpointable average``: the mean of the weights of the best checkpoints."""

from __future__ import annotations

import os
from argparse import Namespace

from checkpointable._errors import CheckpointFileError, MonitorError
from checkpointable.catalog import select
from checkpointable.catalog.info import CheckpointInfo
from checkpointable.catalog.scan import scan
from checkpointable.cli import words
from checkpointable.cli.checkpoints import as_json, name
from checkpointable.cli.export import say_how_to_load
from checkpointable.cli.screen import BAD, CAREFUL, QUIET, Screen

_SOURCES = "Izmailov et al. 2018 (arXiv:1803.05407), Wortsman et al. 2022 (arXiv:2203.05482)"


def run(args: Namespace, screen: Screen) -> int:
    """Write the mean of the best ``k`` of a run, or of all the files that were given."""
    from checkpointable.cli import loaded, mean, written

    written.check_target(args.output, force=args.force)
    chosen, skipped = _chosen(args)
    total, others = mean.Mean(), 0
    for info in chosen:
        weights, others = loaded.weights(info, args.prefix)
        total.add(info.path, weights)
    shared = written.write(total.result(), args.output, {"mean_of": "\n".join(info.path for info in chosen)})
    size = os.path.getsize(args.output)
    screen.answer |= {"checkpoints": [as_json(info) for info in chosen], "skipped": skipped, "left_out": others}
    screen.answer |= {"path": os.path.abspath(args.output), "size": size, "not_averaged": total.not_averaged}
    screen.answer |= {"shared": shared, "has_batch_norm": total.has_batch_norm}
    rows = [(words.score(info, screen.mark), name(info.path, args.run)) for info in chosen]
    screen.table([["mean of" if not at else "", *row] for at, row in enumerate(rows)])
    for path, problem in skipped.items():
        screen.text(f"skipped  {name(path, args.run)}: {problem}", style=BAD)
    screen.line(f"wrote    {args.output}, {words.size(size)}")
    say_how_to_load(args.output, shared, screen)
    if total.not_averaged:
        screen.text(f"not averaged, but those of the first: {', '.join(total.not_averaged)}", style=QUIET)
    if total.has_batch_norm:
        screen.text(
            "It has batch norm, whose running statistics fit none of these weights now. Compute them anew over the"
            " training data: torch.optim.swa_utils.update_bn(loader, model).",
            style=CAREFUL,
        )
    screen.text(f"The method: {_SOURCES}.", style=QUIET)
    return 0


def _chosen(args: Namespace) -> tuple[list[CheckpointInfo], dict[str, str]]:
    """The intact checkpoints to average, and what is wrong with those that came first.

    Raises:
        CheckpointFileError: If they are fewer than two.
        MonitorError: If none has a score of the monitor.
    """
    looked = [scan(path) for path in args.run]
    if all(it.is_file for it in looked):
        candidates, most = [info for it in looked for info in it.infos], len(looked)
    else:
        found = looked[0] if len(looked) == 1 else scan(args.run)
        scored = select.by_score(found.infos, args.monitor)
        if not scored and args.monitor is not None:
            raise MonitorError(
                f"no checkpoint there has a score of {args.monitor!r}. Leave --monitor out to see others."
            )
        candidates = [info for info in scored if info.run_id == scored[0].run_id]
        most = args.best
    chosen: list[CheckpointInfo] = []
    skipped = {lost.path: lost.problem for it in looked for lost in it.unreadable}
    for info in candidates:
        problem = info.verify() if len(chosen) < most else None
        if problem is not None:
            skipped[info.path] = problem
        elif len(chosen) < most:
            chosen.append(info)
    if len(chosen) < 2:
        raise CheckpointFileError(
            f"cannot average {words.counted(len(chosen), 'checkpoint')} in {' or '.join(args.run)}: two intact ones"
            " are needed. Train with save_top_k=2 or more, or pass the files to average."
        )
    return chosen, skipped
