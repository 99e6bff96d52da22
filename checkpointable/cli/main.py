"""Runs one command: reads the command line, prints the answer, turns errors into one message and an exit code.

Exit codes: 0 all is well; 1 the answer is no, as something is damaged, differs or is not there; 2 there is no answer,
as the command line or the place cannot be used.
"""

from __future__ import annotations

import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from typing import Any, TextIO

from checkpointable._errors import CheckpointableError, CheckpointableWarning, CheckpointFileError, MonitorError
from checkpointable.cli.answer import FORMAT, encoded
from checkpointable.cli.parser import build
from checkpointable.cli.screen import Screen, screen_on

_NO, _TROUBLE, _INTERRUPTED, _BROKEN_PIPE = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    Args:
        arguments: The command line without the program; ``None`` for that of the process.
    """
    if sys.stdout is None:  # it was closed before the start
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    try:
        code = _main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # such as head, which has read enough
        _close_quietly(sys.stdout)
        return _BROKEN_PIPE
    except OSError as error:  # such as a full disk
        _close_quietly(sys.stdout)
        print(f"checkpointable: cannot write the output: {error}", file=sys.stderr)
        return _TROUBLE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _main(arguments: Sequence[str] | None) -> int:
    try:
        args = build().parse_args(arguments)
    except SystemExit as stop:  # after its help, or a message about what is wrong
        return stop.code if isinstance(stop.code, int) else _TROUBLE
    screen = screen_on(sys.stdout, as_json=getattr(args, "json", False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what packages say to those who write code
        warnings.simplefilter("always", CheckpointableWarning)
        warnings.showwarning = _show_warning
        code, error = _run(args, screen)
    if screen.as_json and (error is not None or not screen.is_lines):
        failure = {} if error is None else {"error": {"type": type(error).__name__, "message": str(error)}}
        answer = {"format": FORMAT, "command": args.command, "exit_code": code, **screen.answer, **failure}
        print(encoded(answer, indent=None if screen.is_lines else 2))
    return code


def _run(args: Namespace, screen: Screen) -> tuple[int, Exception | None]:
    """The exit code, and the error if there was one; it is printed."""
    try:
        return import_module(args.module).run(args, screen), None
    except BrokenPipeError:
        raise
    except (CheckpointableError, OSError, ImportError) as error:
        print(f"checkpointable {args.command}: {error}", file=sys.stderr)
        return (_NO if isinstance(error, (CheckpointFileError, MonitorError)) else _TROUBLE), error


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"checkpointable: warning: {message}", file=sys.stderr)


def _close_quietly(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that Python does not fail on it when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):  # it is no file of the system
        pass
    finally:
        os.close(nowhere)
