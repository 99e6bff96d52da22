"""``Checkpoints`` as a sequence: its order, what it verifies, how it looks."""

from __future__ import annotations

import json
import linecache
import os
from pathlib import Path

import pytest
import torch
from catalog.conftest import DAMAGE, Make, fill_with_text, flip_a_bit

from checkpointable import CheckpointableWarning, CheckpointFileError
from checkpointable.catalog.checkpoints import Checkpoints
from checkpointable.catalog.select import best, latest


def test_checkpoints_are_in_the_order_of_latest_newest_last(make: Make, tmp_path: Path) -> None:
    new = make("new.ckpt", run_id="new", created=2000.0)
    far = make("far.ckpt", epoch=2, created=100.0)
    near = make("near.ckpt", epoch=1, created=900.0)
    manual = make("manual.ckpt", epoch=1, created=950.0, kind="manual")
    assert [info.path for info in Checkpoints(tmp_path)] == [manual, near, far, new]


def test_checkpoints_index_gives_one_and_slice_some(make: Make, tmp_path: Path) -> None:
    paths = [make(f"{number}.ckpt", batch=number) for number in range(3)]
    found = Checkpoints(str(tmp_path))
    assert (len(found), found[-1].path, found[0].batch) == (3, paths[2], 0)
    assert list(found[1:]) == [found[1], found[2]]
    assert isinstance(found[1:], Checkpoints)


def test_checkpoints_missing_path_is_empty_and_says_so_with_the_path(tmp_path: Path) -> None:
    found = Checkpoints(tmp_path / "no<runs>")
    assert len(found) == 0
    assert repr(found) == f"no checkpoints at {tmp_path}/no<runs>"
    assert "no&lt;runs&gt;" in found._repr_html_()
    assert found.latest() is found.best() is None


def test_checkpoints_file_of_another_kind_raises_and_says_what_to_pass(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are no weights\n")
    with pytest.raises(CheckpointFileError, match="Pass the directory that the checkpoints are in"):
        Checkpoints(tmp_path / "notes.txt")


def test_checkpoints_latest_and_best_agree_with_the_functions(make: Make, tmp_path: Path) -> None:
    make("a.ckpt", batch=1, score=0.1)
    make("b.ckpt", batch=2, score=0.2)
    flip_a_bit(make("c.ckpt", batch=3, score=0.05))
    found = Checkpoints(tmp_path)
    with pytest.warns(CheckpointableWarning, match=r"c\.ckpt"):
        assert found.latest().path == latest(tmp_path)  # type: ignore[union-attr]
    with pytest.warns(CheckpointableWarning, match=r"c\.ckpt"):
        assert found.best("val_loss").path == best(tmp_path)  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["latest", "best"])
def test_checkpoints_warning_points_at_the_callers_line(make: Make, tmp_path: Path, method: str) -> None:
    flip_a_bit(make("a.ckpt", score=0.1))
    found = Checkpoints(tmp_path)
    with pytest.warns(CheckpointableWarning) as caught:
        getattr(found, method)()
    assert caught[0].filename == __file__
    assert "getattr(found, method)()" in linecache.getline(__file__, caught[0].lineno)


def test_checkpoints_file_deleted_since_is_named(make: Make, tmp_path: Path) -> None:
    older, newer = make("a.ckpt", batch=1), make("b.ckpt", batch=2)
    found = Checkpoints(tmp_path)
    os.remove(newer)
    with pytest.warns(CheckpointableWarning, match=r"b\.ckpt: there is no such file"):
        assert found.latest().path == older  # type: ignore[union-attr]


def test_verify_names_the_problem_of_each_file(make: Make, tmp_path: Path) -> None:
    whole = make("whole.ckpt")
    for name, (spoil, _) in DAMAGE.items():
        spoil(make(f"{name}.ckpt"))
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    verdict = Checkpoints(tmp_path).verify()
    assert verdict.pop(whole) is None
    assert {os.path.basename(path) for path in verdict} == {f"{name}.ckpt" for name in DAMAGE}
    for name, (_, why) in DAMAGE.items():
        assert why in str(verdict[str(tmp_path / f"{name}.ckpt")])


def test_to_dicts_can_become_json(make: Make, tmp_path: Path) -> None:
    path = make("a.ckpt", batch=7, score=0.5)
    (only,) = json.loads(json.dumps(Checkpoints(tmp_path).to_dicts()))
    assert (only["path"], only["batch"], only["metrics.val_loss"]) == (path, 7, 0.5)


def test_repr_counts_what_is_not_readable(make: Make, tmp_path: Path) -> None:
    fill_with_text(make("a.ckpt"))
    found = Checkpoints(tmp_path)
    note = "not readable: 1; verify() says which and why"
    assert repr(found) == f"no checkpoints at {tmp_path}\n{note}"
    assert note in found._repr_html_()
