"""What the benchmarks share: the machine in words, contestants that take turns, figures with their spread, tables."""

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import tempfile

import lightning as L
import torch

GB = 1e9


def parser(description, *, params, rounds):
    """The arguments that every script has.

    Args:
        description: The docstring of the script.
        params: Default numbers of parameters.
        rounds: Default number of rounds.
    """
    known = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    known.add_argument("--params", type=number, nargs="+", default=params, help="numbers of parameters: 10M 100M")
    known.add_argument("--rounds", type=int, default=rounds, help="how often each contestant has its turn")
    known.add_argument("--directory", help="where files are written; its file system is what is measured")
    known.add_argument("--quick", action="store_true", help="10 M parameters and few rounds: to see that it works")
    return known


def number(text):
    """``"10M"`` as ten million."""
    factor = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1].upper(), 1)
    return int(float(text[:-1]) * factor) if factor > 1 else int(float(text))


def size(params):
    """Ten million as ``"10 M"``."""
    return f"{params / 1e6:g} M"


def threads(text):
    """A number of torch's threads; ``"all"`` is one for every core."""
    return cores() if text == "all" else int(text)


def cores():
    return len(os.sched_getaffinity(0))


def file_system(directory):
    """The type of the file system that a directory lies on."""
    directory = os.path.realpath(directory)
    found = ("", "unknown")
    with open("/proc/self/mounts") as mounts:
        for mount in mounts:
            _, point, kind, *_ = mount.split()
            if os.path.commonpath([point, directory]) == point and len(point) >= len(found[0]):
                found = (point, kind)
    return found[1]


def machine(directory):
    """The machine that the figures are of, in one line."""
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) * 1024 / 2**30
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return (
        f"{cores()} cores ({model}), {memory:.0f} GiB, file system {file_system(directory)}, Linux"
        f" {platform.release().split('-')[0]}, Python {platform.python_version()}, torch {torch.__version__}, lightning"
        f" {L.__version__}; load {os.getloadavg()[0]:.1f} at the start"
    )


@contextlib.contextmanager
def workspace(directory):
    """A new directory below the one given. It is deleted afterwards, also after an exception."""
    if directory is not None:
        os.makedirs(directory, exist_ok=True)
    path = tempfile.mkdtemp(prefix="checkpointable-benchmark-", dir=directory)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def turns(names, rounds):
    """Every name once a round. Each round begins with another one, so that none always follows the same.

    Yields:
        The number of the round, from 0, and a name.
    """
    names = list(names)
    for round_number in range(rounds):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            yield round_number, name


def spread(values, digits=0):
    """Median, smallest and largest."""
    if not values:
        return ""
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:,.{digits}f} ({least:,.{digits}f} to {most:,.{digits}f})"


def ratios(mine, theirs):
    """Divide the values of each round by the other's values of the same round. A round counts with its median.

    Args:
        mine: For each round a list of values.
        theirs: The same of the other.
    """
    pairs = [(statistics.median(a), statistics.median(b)) for a, b in zip(mine, theirs, strict=True) if a and b]
    return [a / b for a, b in pairs if b > 0]


def table(head, rows):
    """Print Markdown."""
    print(f"\n| {' | '.join(head)} |")
    print(f"|---|{'---:|' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def targets(rows):
    """Print each target beside what was found.

    Args:
        rows: What, the most it should be, and its values: the ratios of the rounds.
    """
    compared = [(what, f"{most:g}", spread(found, 3), _verdict(most, found)) for what, most, found in rows if found]
    if compared:
        table(("target", "at most", "found", ""), compared)


def _verdict(most, found):
    """Whether a target was met: in all rounds, in none, or in how many of them."""
    met = sum(value <= most for value in found)
    return {0: "not met", len(found): "met"}.get(met, f"met in {met} of {len(found)} rounds")
