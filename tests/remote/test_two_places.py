"""A fast local directory and a durable one on S3, whose server stops or is killed."""

from __future__ import annotations

import shutil

import lightning as L
import pytest
import torch
from nets import Net, files, loader, trainer
from remote.conftest import make_bucket, names
from saving.test_two_places import At, Killed

from checkpointable import CheckpointableWarning, Checkpoints, RemoteError, SaveError, latest
from checkpointable.saving.promotion import Promotion
from checkpointable.storage import waiting
from checkpointable.storage.remote import RemoteStore


@pytest.fixture(autouse=True)
def _quick_to_give_up(monkeypatch):
    for name, value in {"pause_seconds": 0.02, "silence_seconds": 0.5, "timeout_seconds": 30.0}.items():
        monkeypatch.setitem(RemoteStore.__init__.__kwdefaults__, name, value)


@pytest.fixture
def fast(tmp_path):
    return tmp_path / "fast"


def net_at(fast, s3, **options):
    given = {"save_interval": 1, "save_top_k": 0, "async_save": False, **options}
    return Net(fast_dirpath=fast, dirpath=s3, **given)


def killed_at(tmp_path, fast, s3, batch, **actions):
    net = net_at(fast, s3, save_on_exception=False)

    def kill():
        net._checkpointing.saver._promotion._writer.wait()
        raise Killed

    events = At(**actions, **{f"batch_{batch}": kill})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Promotion, "finish", lambda promotion: None)
        with pytest.raises(Killed):
            trainer(tmp_path, max_epochs=2, callbacks=[events]).fit(net, loader(5, shuffle=True))


@pytest.fixture
def straight(tmp_path):
    """The weights of the run that was never interrupted."""
    L.seed_everything(1)
    net = Net(save_interval=1, dirpath=tmp_path / "straight")
    trainer(tmp_path, max_epochs=2).fit(net, loader(5, shuffle=True))
    L.seed_everything(1)
    return net.layer.weight


@pytest.mark.parametrize("lost", ["the process", "the machine"])
def test_run_goes_on_as_the_same_run_from_the_fast_place_or_from_the_bucket(tmp_path, fast, s3, straight, lost):
    killed_at(tmp_path, fast, s3, 7)
    if lost == "the machine":
        shutil.rmtree(fast)
    resumed_from = latest([fast, s3])
    assert resumed_from.startswith(s3 if lost == "the machine" else str(fast))
    L.seed_everything(2)
    net = net_at(fast, s3, resume="auto")
    trainer(tmp_path, max_epochs=2).fit(net, loader(5, shuffle=True))
    assert torch.equal(net.layer.weight, straight)
    assert "epoch_1_batch_5.ckpt" in names(s3)
    assert net.last_model_path == f"{s3}/epoch_1_batch_5.ckpt"
    assert len(Checkpoints([fast, s3])) == len(set(files(fast)) | set(names(s3)))


def test_server_that_stops_costs_no_interval_in_the_fast_place(tmp_path, fast, s3, wire, straight):
    with pytest.warns(CheckpointableWarning, match="could not be copied to s3://.*tries again"):
        killed_at(tmp_path, fast, s3, 7, batch_3=wire.cut)
    assert files(fast) == ["epoch_1_batch_2.ckpt"]
    with pytest.warns(CheckpointableWarning, match=r"cannot reach s3://.* What is there is not compared: .*is used"):
        assert latest([fast, s3]) == str(fast / "epoch_1_batch_2.ckpt")
    L.seed_everything(2)
    net = net_at(fast, s3, resume="auto")
    mend = At(batch_0=wire.mend)  # before the first save, which would warn once more
    with (
        pytest.warns(CheckpointableWarning, match="What is there is not compared"),
        pytest.warns(CheckpointableWarning, match=r"The run goes on in .*fast, and copies are tried again"),
    ):
        trainer(tmp_path, max_epochs=2, callbacks=[mend]).fit(net, loader(5, shuffle=True))
    assert torch.equal(net.layer.weight, straight)
    assert names(s3)[-1] == "epoch_1_batch_5.ckpt"
    assert len(names(s3)) == 1, "what an earlier attempt had left there is deleted, too"


def test_server_that_is_not_reached_is_an_error_where_nothing_fast_is_intact(fast, s3, wire, tmp_path):
    wire.cut()
    with pytest.raises(RemoteError, match="cannot reach s3://"):
        latest([fast, s3])
    with pytest.raises(SaveError, match="cannot save checkpoints in s3://"):
        trainer(tmp_path).fit(net_at(fast, s3), loader(2))


def test_server_that_hangs_to_the_end_is_an_error_that_names_what_is_not_there(tmp_path, fast, s3, server, monkeypatch):
    def stop():
        net._checkpointing.saver._promotion._writer.wait()  # nothing waits by the longer time any more
        monkeypatch.setattr(waiting, "ANSWER_SECONDS", 1.0)
        server.stop()

    monkeypatch.setitem(RemoteStore.__init__.__kwdefaults__, "timeout_seconds", 5.0)
    net = net_at(fast, s3)
    try:
        with (
            pytest.warns(CheckpointableWarning, match="could not be copied"),
            pytest.raises(SaveError, match=r"epoch_0_batch_6\.ckpt could not be copied to s3://"),
        ):
            trainer(tmp_path, callbacks=[At(batch_3=stop)]).fit(net, loader(6))
    finally:
        server.resume()
    assert latest(fast) == str(fast / "epoch_0_batch_6.ckpt")


def test_killed_server_takes_the_next_copy_when_it_is_back(tmp_path, fast, s3, server):
    net = net_at(fast, s3)

    def back():
        net._checkpointing.saver._promotion._writer.wait()
        server.start()
        make_bucket(s3.rpartition("/runs/")[0])  # its memory died with it

    events = At(batch_2=server.kill, batch_4=back)
    with pytest.warns(CheckpointableWarning, match="could not be copied"):
        trainer(tmp_path, callbacks=[events]).fit(net, loader(6))
    assert names(s3) == ["epoch_0_batch_6.ckpt"]


def test_new_run_reads_no_file_that_others_have_left_in_the_bucket(tmp_path, fast, s3, wire):
    trainer(tmp_path).fit(Net(dirpath=s3, save_interval=1, save_last_k=-1, save_top_k=0, async_save=False), loader(4))
    wire.requests.clear()
    trainer(tmp_path).fit(net_at(fast, s3, save_interval=None), loader(2))
    assert not [request for request in wire.requests if request.startswith("GET") and "epoch_0_batch_3" in request]
