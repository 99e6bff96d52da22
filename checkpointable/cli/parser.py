"""The command line: every command with its arguments. The module of a command is imported only when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from checkpointable._version import __version__

_RUN = "a directory, a checkpoint, or several; local paths or URLs"
_CODES = "exit codes: 0 all is well; 1 damaged, different or not there; 2 no answer, as for a wrong command line"


@dataclass(frozen=True)
class Command:
    """One command of the tree, with what its arguments are; ``completion`` reads them.

    Attributes:
        name: What is typed.
        help: What it does, in one line.
        parser: Reads its arguments.
        actions: Its arguments.
    """

    name: str
    help: str
    parser: argparse.ArgumentParser
    actions: list[argparse.Action]

    def add(self, *names: str, **options: object) -> None:
        """Take one more argument, given as for ``ArgumentParser.add_argument``."""
        add: Callable[..., argparse.Action] = self.parser.add_argument
        self.actions.append(add(*names, **options))


def build() -> argparse.ArgumentParser:
    """The parser of the whole command line. What it returns has ``command`` and ``module``, which runs it."""
    return tree()[0]


def tree() -> tuple[argparse.ArgumentParser, list[Command]]:
    """The parser, and the commands in it."""
    parser = argparse.ArgumentParser(
        prog="checkpointable", description="Look at runs, check them, and use what was saved.", epilog=_CODES
    )
    parser.add_argument("--version", action="version", version=f"checkpointable {__version__}")
    below = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    found = []
    for name, (text, define) in _COMMANDS.items():
        module = f"checkpointable.cli.{name}"
        one = below.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=_CODES)
        one.set_defaults(module=module)
        command = Command(name, text, one, [])
        define(command)
        if name != "completion":
            command.add("--json", action="store_true", help="print one JSON object, for programs")
        found.append(command)
    return parser, found


def _run(command: Command) -> None:
    command.add("run", metavar="RUN", nargs="+", help=_RUN)


def _show(command: Command) -> None:
    _run(command)
    command.add("--run-id", metavar="ID", help="the run to show, or how its id begins; by default the newest")
    command.add("--verify", action="store_true", help="read every byte of every checkpoint, however large")


def _ls(command: Command) -> None:
    _run(command)
    command.add("--paths", action="store_true", help="print paths alone, one a line, never cut")


def _diff(command: Command) -> None:
    command.add("one", metavar="A", help="a checkpoint, or a directory: then its newest one")
    command.add("other", metavar="B", help="the same")
    command.add("--all", action="store_true", help="print every difference, and also what only a resume needs")


def _export(command: Command) -> None:
    _run(command)
    _output(command)
    _which(command, "the newest one, instead of the best")
    command.add("--prefix", metavar="P", default="", help="take the weights whose names begin with P, and take P off")


def _average(command: Command) -> None:
    _run(command)
    _output(command)
    command.add("-k", "--best", metavar="K", type=_positive, default=3, help="how many of the best (3)")
    command.add("--monitor", metavar="NAME", help="what they are the best by; by default as the newest file says")
    command.add("--prefix", metavar="P", default="", help="take the weights whose names begin with P, and take P off")


def _output(command: Command) -> None:
    command.add(
        "-o", "--output", metavar="FILE", required=True, help="a file to write: *.safetensors, or *.pt for torch.load"
    )
    command.add("--force", action="store_true", help="write over a file that is there")


def _which(command: Command, of_last: str) -> None:
    command.add("--last", action="store_true", help=f"of a directory, {of_last}")


def _prune(command: Command) -> None:
    _run(command)
    command.add("--keep-last", metavar="N", type=int, default=1, help="newest to keep of each run (1); -1 for all")
    command.add("--keep-best", metavar="N", type=int, default=1, help="best to keep of each run (1); -1 for all")
    command.add("--yes", action="store_true", help="delete; without it, only say what would be deleted")


def _report(command: Command) -> None:
    _run(command)
    command.add("-o", "--output", metavar="FILE", required=True, help="the HTML file to write")
    command.add(
        "--verify", action=argparse.BooleanOptionalAction, help="read every byte, or none; by default 2 GiB and less"
    )


def _doctor(command: Command) -> None:
    command.add("run", metavar="DIR", help="a directory of checkpoints, or one that is to become one; a path or a URL")


def _resume(command: Command) -> None:
    _run(command)
    command.add("--dry-run", action="store_true", help="needed: a run is resumed by its script, and not from here")


def _watch(command: Command) -> None:
    _run(command)
    command.add("--once", action="store_true", help="print what is there, and end")
    command.add("--interval", metavar="S", type=_seconds, help="seconds between two looks; 1, at a URL 10")


def _completion(command: Command) -> None:
    command.add("shell", choices=("bash", "zsh", "fish"), help="which shell")


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return int(text)


def _seconds(text: str) -> float:
    if not 0.01 <= float(text) < 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.01 and a day")
    return float(text)


_positive.__name__, _seconds.__name__ = "number", "number of seconds"  # what argparse calls them in its messages

_COMMANDS: dict[str, tuple[str, Callable[[Command], None]]] = {
    "show": ("show a run on one screen, and what to type next", _show),
    "ls": ("list checkpoints, newest last", _ls),
    "verify": ("read every byte of checkpoints, and say which are damaged", _run),
    "diff": ("say how two checkpoints differ", _diff),
    "export": ("write the weights alone, to be loaded without this library", _export),
    "average": ("write the mean of the weights of the best checkpoints", _average),
    "prune": ("delete outdated checkpoints", _prune),
    "report": ("write one HTML page about runs", _report),
    "doctor": ("say whether a directory can be relied on", _doctor),
    "resume": ("say what a resume would take, and what would not be exact", _resume),
    "watch": ("print a line for each save, while a run trains", _watch),
    "completion": ("print a script that completes this command in a shell", _completion),
}
