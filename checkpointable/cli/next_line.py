"""What to type next, by how a run stands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from checkpointable.cli.checked import Files
from checkpointable.cli.one_run import FINISHED, RUNNING, Run
from checkpointable.policy.secrets import HIDDEN


@dataclass(frozen=True)
class Next:
    """A line for a shell or a script, and why."""

    line: str
    why: str = ""


def next_line(run: Run, files: Files, places: Sequence[str]) -> Next:
    """The line that helps most."""
    typed = shlex.join(places)
    if files.damaged:
        return Next(f"checkpointable verify {typed}", "It reads every file. Replace damaged ones, or delete them.")
    if run.state == RUNNING:
        return Next(f"checkpointable watch {typed}", "It prints a line for each save.")
    if files.last is None or run.state == FINISHED:
        suffix = "safetensors" if find_spec("safetensors") else "pt"
        return Next(f"checkpointable export {typed} -o best.{suffix}", "It writes the weights alone.")
    command = _resuming_command(run)
    if command is not None:
        return Next(command, "The same command has resumed this run before.")
    given = repr(places[0]) if len(places) == 1 else repr(list(places))
    return Next(
        f"trainer.fit(model, ckpt_path=checkpointable.latest({given}))", "In the script that trained it: it goes on."
    )


def _resuming_command(run: Run) -> str | None:
    """The command of the latest session, if an earlier one of the same words was followed by a resume."""
    records = [session.record for session in run.sessions if session.record is not None]
    if len(records) < 2 or records[-1].resumed_from is None or not records[-1].command:
        return None
    command = records[-1].command
    if any(word.endswith("...") or HIDDEN in word for word in command):  # it is not all there
        return None
    typed = ("python", *command) if command[0].endswith(".py") else command
    return shlex.join(typed) if command == records[-2].command else None
