"""``checkpointable export``: the weights alone, in a file that loads without this library."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from checkpointable.catalog.info import CheckpointInfo
from checkpointable.cli import words
from checkpointable.cli.checkpoints import as_json, best_or_newest, name
from checkpointable.cli.screen import CAREFUL, QUIET, TITLE, Screen


def run(args: Namespace, screen: Screen) -> int:
    """Write the weights of the best checkpoint there, of the newest, or of the one that was given."""
    from checkpointable.cli import loaded, written

    written.check_target(args.output, force=args.force)
    info = best_or_newest(args.run, last=args.last).info
    assert info is not None
    weights, others = loaded.weights(info, args.prefix)
    shared = written.write(weights, args.output, {"checkpoint": info.path, "run_id": info.run_id})
    size = os.path.getsize(args.output)
    screen.answer |= {"checkpoint": as_json(info), "path": os.path.abspath(args.output), "size": size}
    screen.answer |= {"tensors": len(weights), "left_out": others, "shared": shared}
    screen.line("from   ", name(info.path, args.run), (f"  {words.kind(info)}, {info.at}", QUIET))
    screen.line(f"wrote  {args.output}, {words.counted(len(weights), 'tensor')}, {words.size(size)}")
    say_how_to_load(args.output, shared, screen)
    for note in notes(info, others, args.prefix):
        screen.text(note, style=CAREFUL)
    return 0


def say_how_to_load(target: str, shared: dict[str, str], screen: Screen) -> None:
    """Print the lines that load a file."""
    if Path(target).suffix != ".safetensors":
        line = f"model.load_state_dict(torch.load({target!r}, weights_only=True))"
    elif shared:
        line = f"safetensors.torch.load_model(model, {target!r})"
    else:
        line = f"model.load_state_dict(safetensors.torch.load_file({target!r}))"
    screen.line(("load   ", TITLE), line, whole=True)
    if shared:
        pairs = ", ".join(f"{one} = {other}" for one, other in shared.items())
        screen.text(f"written once, as the model shares them: {pairs}", style=QUIET)


def notes(info: CheckpointInfo, others: int, prefix: str) -> list[str]:
    """What one should know about the weights of a checkpoint."""
    found = []
    if others:
        found.append(f"left out: {words.counted(others, 'tensor')} whose names do not begin with {prefix!r}")
    if info.frozen_checksum is not None:
        found.append("the frozen weights are not in it: the checkpoint was saved with save_trainable_only=True")
    if info.weights == "averaged":
        found.append("these are averaged weights (of WeightAveraging or StochasticWeightAveraging)")
    return found
