"""``checkpointable completion``: a script that completes the command in a shell, made from its own command line."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Iterator

from checkpointable.cli.parser import Command, tree
from checkpointable.cli.screen import Screen


def run(args: Namespace, screen: Screen) -> int:
    """Print the script."""
    commands = tree()[1]
    for line in {"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](commands):
        screen.line(line, whole=True)
    return 0


def _bash(commands: list[Command]) -> Iterator[str]:
    yield '# eval "$(checkpointable completion bash)"'
    yield "_checkpointable() {"
    yield "  local word=${COMP_WORDS[COMP_CWORD]}"
    yield "  if [[ $COMP_CWORD == 1 ]]; then"
    yield f'    COMPREPLY=($(compgen -W {shlex.quote(" ".join(it.name for it in commands))} -- "$word")); return'
    yield "  fi"
    yield "  local words="
    yield "  case ${COMP_WORDS[1]} in"
    for command in commands:
        yield f"    {command.name}) words={shlex.quote(' '.join(_words(command)))} ;;"
    yield "  esac"
    yield "  if [[ $word == -* || ${COMP_WORDS[1]} == completion ]]; then"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$word"))'
    yield "  else"
    yield '    COMPREPLY=($(compgen -f -- "$word"))'
    yield "  fi"
    yield "}"
    yield "complete -o filenames -F _checkpointable checkpointable"


def _zsh(commands: list[Command]) -> Iterator[str]:
    yield "#compdef checkpointable"
    yield "# source <(checkpointable completion zsh), after compinit"
    yield "_checkpointable() {"
    yield "  if (( CURRENT == 2 )); then"
    yield "    local -a commands=("
    for command in commands:
        yield f"      {shlex.quote(f'{command.name}:{command.help}')}"
    yield "    )"
    yield "    _describe command commands; return"
    yield "  fi"
    yield "  case $words[2] in"
    for command in commands:
        options = " ".join(shlex.quote(it) for it in _words(command))
        is_choice = command.name == "completion"
        files = "" if is_choice else "if [[ $PREFIX != -* ]]; then _files; return; fi; "
        yield f"    {command.name}) {files}compadd -- {options} ;;"
    yield "  esac"
    yield "}"
    yield "compdef _checkpointable checkpointable"


def _fish(commands: list[Command]) -> Iterator[str]:
    yield "# checkpointable completion fish | source"
    for command in commands:
        yield (f"complete -c checkpointable -n __fish_use_subcommand -f -a {command.name} -d {_quoted(command.help)}")
        seen = f"'__fish_seen_subcommand_from {command.name}'"
        for action in command.actions:
            for option in action.option_strings:
                flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
                takes = "" if action.nargs == 0 else " -r"
                yield f"complete -c checkpointable -n {seen} {flag}{takes} -d {_quoted(action.help or '')}"
            if action.choices and not action.option_strings:
                words = " ".join(map(str, action.choices))
                yield f"complete -c checkpointable -n {seen} -f -a {_quoted(words)}"


def _words(command: Command) -> Iterator[str]:
    """What can be typed after a command, beside files."""
    for action in command.actions:
        yield from action.option_strings
        if not action.option_strings:
            yield from map(str, action.choices or ())
    if command.name != "completion":
        yield "--help"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
