"""A resume proves itself: batches that are trained again have the results that they had before the stop."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from resume.stopped import Noisy, confirmed, said, trace_files, train, without_random_states

from checkpointable import CheckpointableWarning, Checkpoints, ResumeError, latest
from checkpointable.catalog.info import Confirmation
from checkpointable.catalog.traces import Label, Trace
from checkpointable.resume import traces
from checkpointable.storage import ring_file

__all__ = ["said"]  # a fixture


def test_resume_trains_the_batches_up_to_the_stop_again_and_is_confirmed(tmp_path, said):
    train(tmp_path, stop=7)
    assert (said(), len(trace_files(tmp_path))) == ([], 1)
    train(tmp_path)
    assert said() == confirmed(3)
    info = Checkpoints(tmp_path)[-1]
    assert info.confirmation == Confirmation(batches=3, first_difference=None)
    assert (info.to_dict()["confirmed_batches"], info.to_dict()["first_difference"]) == (3, None)
    assert trace_files(tmp_path) == []


def test_resume_with_other_random_numbers_is_called_a_difference(tmp_path, said, monkeypatch):
    """The twin of all that is confirmed."""
    train(tmp_path, stop=7)
    without_random_states(monkeypatch)
    differs = r"not the same run: batch 5 of the run has the loss [\d.]+, and had [\d.]+ before the kill .*the same: 0"
    with pytest.warns(
        CheckpointableWarning, match=rf"{differs}.*larger than rounding.*Compare the data and the script"
    ):
        train(tmp_path)
    assert said() == []
    assert Checkpoints(tmp_path)[-1].confirmation == Confirmation(batches=0, first_difference=5)


def test_difference_with_strict_resume_ends_the_training(tmp_path, monkeypatch):
    train(tmp_path, stop=7)
    without_random_states(monkeypatch)
    with pytest.raises(
        ResumeError, match=r"strict_resume=True\): batch 5 .*To go on all the same, set strict_resume=Fal"
    ):
        train(tmp_path, net_options={"strict_resume": True})


def test_difference_is_expected_where_the_script_gives_what_from_script_names(tmp_path, said):
    train(tmp_path, stop=7)
    train(tmp_path, net_options={"from_script": "randomness", "strict_resume": True})
    (told,) = said()
    assert told.startswith("batch 5 of the run has the loss")
    assert told.endswith("The resume is not exact, so this is expected.")


def test_difference_is_expected_and_no_warning_if_the_resume_is_not_exact(tmp_path, said):
    train(tmp_path, stop=7)
    train(tmp_path, gradient_clip_val=1e-3)
    (told,) = said()
    assert told.startswith("batch 6 of the run has the loss")
    assert told.endswith(
        "before the kill (batches before it that gave the same: 1). The resume is not exact, so this is expected."
    )


class Rounding(Noisy):
    """Every batch of a resumed run rounds otherwise."""

    def compute_loss(self, batch, batch_idx):
        return super().compute_loss(batch, batch_idx) * (1 if self.trainer.ckpt_path is None else 1 + 1e-6)


def test_difference_of_the_size_of_rounding_is_called_that(tmp_path):
    train(tmp_path, Rounding, stop=7)
    with pytest.warns(CheckpointableWarning, match=r"of the size of rounding: .*Trainer\(deterministic=True\)"):
        train(tmp_path, Rounding)


def test_resume_from_a_file_saved_right_before_the_stop_claims_nothing(tmp_path, said):
    train(tmp_path, stop=8)
    train(tmp_path)
    assert said() == ["nothing to compare: the run stopped right after its save"]
    assert Checkpoints(tmp_path)[-1].confirmation is None


def test_run_that_had_ended_normally_and_is_trained_longer_says_nothing(tmp_path, said):
    train(tmp_path, max_epochs=1)
    train(tmp_path)
    assert said() == []


def test_stopped_run_whose_trace_is_gone_claims_nothing(tmp_path, said):
    """The twin: quiet is only what has ended normally."""
    train(tmp_path, stop=7)
    (first,) = trace_files(tmp_path)
    train(tmp_path, stop=2)
    first.unlink()
    train(tmp_path)
    assert said() == ["nothing to compare: no record of the batches after the save is left"]


def test_second_stop_before_all_is_compared_leaves_the_first_trace_to_the_next_resume(tmp_path, said):
    train(tmp_path, stop=11, net_options={"save_interval": 3, "save_last_k": 3})
    train(tmp_path, stop=1, ckpt_path=str(tmp_path / "epoch_0_batch_6.ckpt"))  # before its first save
    train(tmp_path, stop=3, ckpt_path=str(tmp_path / "epoch_0_batch_6.ckpt"))
    assert (said(), len(trace_files(tmp_path))) == ([], 3)
    train(tmp_path)
    assert said() == confirmed(3)  # 9, 10 and, only by the first attempt and after the newest file, 11
    assert trace_files(tmp_path) == []


def test_traces_that_no_resume_needs_any_more_are_deleted_at_the_resume(tmp_path):
    for _ in range(5):
        train(tmp_path, stop=7, max_epochs=5)
        assert len(trace_files(tmp_path)) <= 3


class Doubled(Noisy):
    """The same with another loss."""

    def compute_loss(self, batch, batch_idx):
        return 2 * super().compute_loss(batch, batch_idx)


def test_attempt_that_differed_is_compared_with_itself_from_then_on(tmp_path, said):
    train(tmp_path, stop=10, net_options={"save_last_k": 3})
    with pytest.warns(CheckpointableWarning, match="not the same run"):
        train(tmp_path, Doubled, stop=7, ckpt_path=str(tmp_path / "epoch_0_batch_4.ckpt"))
    train(tmp_path, Doubled)
    assert said() == confirmed(3)


def test_traces_of_other_runs_stay(tmp_path):
    train(tmp_path / "a", stop=5, dirpath=tmp_path)
    (other,) = trace_files(tmp_path)
    before = other.read_bytes()
    train(tmp_path / "b", dirpath=tmp_path, ckpt_path=None)
    assert trace_files(tmp_path) == [other]
    assert other.read_bytes() == before


def test_run_resumed_into_another_directory_finds_the_trace_beside_its_file(tmp_path, said):
    train(tmp_path, stop=7)
    train(tmp_path, dirpath=tmp_path / "b")
    assert said() == confirmed(3)
    assert trace_files(tmp_path) == trace_files(tmp_path / "b") == []


def test_trace_of_a_run_with_a_remote_directory_lies_under_the_root_directory(tmp_path, said):
    url = "memory://recorder/runs"
    train(tmp_path, stop=7, dirpath=url, ckpt_path=None)
    assert len(trace_files(tmp_path)) == 1
    train(tmp_path, dirpath=url, ckpt_path=latest(url))
    assert said() == confirmed(3)
    assert trace_files(tmp_path) == []


@pytest.mark.parametrize("options", [{"enable_checkpointing": False}, {"fast_dev_run": 2}])
def test_training_that_saves_nothing_records_nothing(tmp_path, options):
    class Looking(Noisy):
        def on_train_end(self):
            assert trace_files(tmp_path) == []

    train(tmp_path, Looking, ckpt_path=None, **options)


def damage(where: Path, number: int) -> None:
    """Flip a bit in the record of a batch."""
    (path,) = trace_files(where)
    content = bytearray(path.read_bytes())
    content[ring_file._HEAD_BYTES + 16 * number] ^= 1
    path.write_bytes(content)


def test_gap_in_the_records_ends_the_comparison_and_is_no_difference(tmp_path, said):
    train(tmp_path, stop=8, net_options={"save_interval": 3})
    damage(tmp_path, 8)
    train(tmp_path, stop=9 - 6, ckpt_path=str(tmp_path / "epoch_0_batch_6.ckpt"))
    assert said() == ["resume confirmed: the batch up to the kill gave the same loss, bit for bit"]


def test_gap_before_the_last_record_says_how_many_were_compared(tmp_path, said):
    train(tmp_path, stop=7)
    damage(tmp_path, 6)
    train(tmp_path)
    assert said() == [
        "resume confirmed in part: the first of the 3 batches up to the kill gave the same loss, bit for bit;"
        " the record of batch 6 is missing"
    ]


def test_run_that_had_another_number_of_ranks_claims_nothing(tmp_path, said):
    train(tmp_path, stop=7)
    (path,) = trace_files(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"ranks": 1', b'"ranks": 2'))
    train(tmp_path)
    assert said() == ["nothing to compare: 2 ranks before, 1 now"]


def test_ring_shorter_than_the_run_ends_the_comparison_and_is_no_difference(tmp_path, said, monkeypatch):
    monkeypatch.setitem(ring_file.RingFile.__init__.__kwdefaults__, "records", 2)
    train(tmp_path, stop=7)
    train(tmp_path)
    assert said() == ["nothing to compare: the record of the first batch after the save is missing"]


def test_training_that_ends_before_the_stop_says_how_many_were_compared(tmp_path, said):
    train(tmp_path, stop=7)
    train(tmp_path, max_epochs=-1, max_steps=6)
    assert said() == [
        "resume confirmed in part: the first 2 of the 3 batches up to the kill gave the same losses, bit for bit"
    ]


class Copying(Noisy):
    """Is copied and pickled while it trains."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        copies = copy.deepcopy(self._checkpointing), pickle.loads(pickle.dumps(self._checkpointing))
        for other in copies:
            other.recorder.record(99, outputs, self)
            assert other.recorder.outcome() is None


def test_copies_and_pickles_of_a_module_record_nothing(tmp_path, said):
    train(tmp_path, Copying, stop=7)
    (trace,) = trace_files(tmp_path)
    assert set(ring_file.read(str(trace)).records) == set(range(1, 8))


def test_trace_that_cannot_be_deleted_is_a_warning(tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "not allowed")

    trace = Trace(path=str(tmp_path / "a"), attempt="a", rank=0, label=None, records={})
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(CheckpointableWarning, match="It stays; delete it by hand"):
        traces.remove([trace])


def trace_of(where: Path, run_id: str) -> ring_file.RingFile:
    label = Label(run_id=run_id, trajectory="first", ranks=1).encoded()
    return ring_file.RingFile(str(where / f".checkpointable-{run_id}first-0.trace"), label, records=8)


def test_new_run_deletes_the_traces_of_runs_that_left_no_checkpoint(tmp_path):
    trace_of(tmp_path, "dead").close()
    running = trace_of(tmp_path, "live")
    train(tmp_path, stop=7)
    with_file = trace_files(tmp_path)
    assert [path.name.startswith(".checkpointable-dead") for path in with_file] == [False, False]
    running.close()
    train(tmp_path, stop=7, ckpt_path=None)
    assert {path.name for path in with_file} - {path.name for path in trace_files(tmp_path)} == {
        ".checkpointable-livefirst-0.trace"
    }, "a run that can be resumed keeps its trace"
