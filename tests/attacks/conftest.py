"""The forge that all tests of a process share, and small disks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attacks.forge import Forge


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    started = Forge(tmp_path_factory.mktemp("forge"))
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: what the system has taken outlives a kill there as on a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="attacked-", dir=memory) as made:
        yield Path(made)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a disk of so many bytes."""
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"

    def mount(size: int) -> Path:
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            disk.rmdir()
            pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.strip()}")
        return disk

    try:
        yield mount
    finally:
        if disk.is_dir():
            subprocess.run(["umount", disk], check=True)
