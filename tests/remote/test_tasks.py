"""Saves in a remote directory: nothing is overwritten, few questions are asked, and no wait is without an end."""

from __future__ import annotations

import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from catalog.conftest import metadata
from nets import Net, loader, trainer
from remote.conftest import names, unfinished
from remote.contents import PART, Bytes, checkpoint
from remote.server import environment
from saving.test_save_task import RUN, Saving

from checkpointable import CheckpointableWarning, SaveError, latest
from checkpointable.storage import unfinished_uploads, waiting
from checkpointable.storage.paths import filesystem
from checkpointable.storage.remote import RemoteStore
from checkpointable.storage.staging.snapshot import Snapshot


def run_at(place, store_at, **options):
    return Saving(store_at(place), save_last=False, **options)


def test_fixed_name_is_never_overwritten(place, store_at):
    run = run_at(place, store_at, filename="x")
    seen = []
    for batch in (1, 2, 3):
        assert run.save(batch).problem is None
        seen += names(place)
    assert seen == ["x.ckpt", "x-v1.ckpt", "x.ckpt"]


def test_upload_that_arrives_damaged_costs_no_older_file(place, store_at):
    run = run_at(place, store_at, filename="x")
    first = run.save(1).path
    run.content = partial(Damaged)
    result = run.save(2)
    assert "differs from what was sent" in result.problem
    assert latest(place) == first
    assert run.kept.kept == {first}


class Damaged:
    """A checkpoint whose bytes are others each time they are read."""

    def __init__(self, batch: int) -> None:
        described = metadata(run_id=RUN, kind="interval", batch=batch, batches=batch)
        self._content = Snapshot({"weight": torch.zeros(500)}, described)
        self._times = 0
        self.size = self._content.size

    def pieces(self):
        self._times += 1
        data = bytearray(b"".join(self._content.pieces()))
        data[1000] ^= self._times
        yield memoryview(bytes(data))


def test_upload_that_arrives_damaged_would_cost_the_older_file_if_names_were_overwritten(place, store_at):
    """The twin."""
    run = run_at(place, store_at, filename="x")
    run.store.overwrites_safely = True
    run.save(1)
    run.content = partial(Damaged)
    run.save(2)
    assert latest(place) is None


def test_requests_of_a_save_do_not_grow_with_the_files_kept(s3, store_at, wire):
    run = run_at(s3, store_at, save_last_k=-1)
    counts = []
    for batch in range(1, 31):
        wire.requests.clear()
        run.save(batch)
        counts.append(len(wire.requests))
    assert counts[5] == counts[29]
    assert counts[29] <= 12


def test_files_that_are_gone_are_noticed(place, store_at):
    run = run_at(place, store_at, save_last_k=3)
    gone = run.save(1).path
    run.store.remove(gone)
    assert f"checkpoints of this run are gone: {gone}" in run.save(2).messages[0]


def test_fifth_run_in_a_directory_uploads_each_file_once(s3, store_at, wire):
    for _ in range(4):
        run_at(s3, store_at).save(1)
    wire.requests.clear()
    assert run_at(s3, store_at).save(1).path == f"{s3}/epoch_0_batch_1-v4.ckpt"
    assert len([request for request in wire.requests if request.startswith("PUT")]) == 1


def test_upload_whose_abort_fails_is_aborted_by_the_next_save(s3, store_at, wire):
    store = store_at(s3, tries=1)
    content = Bytes(checkpoint(3 * PART), lambda number: wire.cut() if number == 12 else None)
    with pytest.raises(SaveError):
        store.write(content, store.path("a.ckpt"), overwrite=False)
    wire.mend()
    assert unfinished(s3) == ["runs/a/a.ckpt"]
    store.write(Bytes(checkpoint()), store.path("b.ckpt"), overwrite=False)
    assert unfinished(s3) == []


@pytest.mark.parametrize("is_old", [True, False])
def test_uploads_that_killed_processes_left_here_are_aborted_after_a_day(s3, store_at, monkeypatch, is_old):
    files, path = filesystem(s3)
    bucket, _, folder = path.partition("/")
    elsewhere = "runs/another/a.ckpt"
    for key in (f"{folder}/a.ckpt", elsewhere, f"{folder}/of_somebody_else.parquet"):
        files.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    if not is_old:  # moto says of each that it was begun in 2010
        monkeypatch.setattr(unfinished_uploads, "ABANDONED_SECONDS", 100 * 365 * 24 * 3600)
    store_at(s3).prepare(below=True)
    left = {elsewhere, f"{folder}/of_somebody_else.parquet"} | (set() if is_old else {f"{folder}/a.ckpt"})
    assert set(unfinished(s3)) == left


class Yes(BaseHTTPRequestHandler):
    """Answers everything with 200 and nothing, as a captive portal does."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer


@pytest.fixture
def says_yes(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Yes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in environment(server.server_address[1]).items():
        monkeypatch.setenv(name, value)
    filesystem("s3://bucket")[0].clear_instance_cache()
    yield "s3://bucket/run"
    server.shutdown()
    server.server_close()
    filesystem("s3://bucket")[0].clear_instance_cache()


def test_server_that_says_yes_to_everything_is_refused_at_the_start(says_yes, store_at):
    with pytest.raises(SaveError, match=r"is said to be there, and nobody has written it: .* choose another dirpath"):
        store_at(says_yes).prepare(below=False)


def test_save_to_a_server_that_says_yes_to_everything_ends(says_yes, store_at):
    assert run_at(says_yes, store_at).save(1).problem is not None


def test_store_that_is_silent_is_tried_once_by_the_next_save_and_as_always_after_it(s3, server, monkeypatch):
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 1.0)
    store = RemoteStore(s3, tries=4, pause_seconds=0.01, silence_seconds=0.5)
    server.stop()
    try:
        for _ in range(2):
            with pytest.raises(SaveError, match=r"\(one try\): no answer for 1 s\."):
                store.write(Bytes(checkpoint()), store.path("a.ckpt"), overwrite=False)
    finally:
        server.resume()
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 60.0)
    store.write(Bytes(checkpoint()), store.path("a.ckpt"), overwrite=False)
    assert names(s3) == ["a.ckpt"]


def test_training_whose_store_stops_answering_ends_and_says_what_is_not_there(s3, server, tmp_path, monkeypatch):
    for name, value in {"silence_seconds": 0.5, "timeout_seconds": 2.0}.items():
        monkeypatch.setitem(RemoteStore.__init__.__kwdefaults__, name, value)
    stopped = threading.Event()

    class Stopping(Net):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 6:
                monkeypatch.setattr(waiting, "ANSWER_SECONDS", 1.0)
                server.stop()
                stopped.set()

    net = Stopping(dirpath=s3, save_interval=5, save_top_k=0, async_save=False)
    began = time.monotonic()
    try:
        with (
            pytest.warns(CheckpointableWarning, match=r"batch 10.* was not saved"),
            pytest.raises(SaveError, match=r"batch 12.* was not saved: .*no answer.*batch_5\.ckpt"),
        ):
            trainer(tmp_path).fit(net, loader(12))
    finally:
        server.resume()
    assert stopped.is_set()
    assert time.monotonic() - began < 300
    assert latest(s3) == f"{s3}/epoch_0_batch_5.ckpt"
    assert net.last_model_path == latest(s3)
