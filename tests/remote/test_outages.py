"""Whatever happens while a file is uploaded: it is intact, or invisible."""

from __future__ import annotations

import gc
import re

import pytest
from remote.conftest import get, make_bucket, names, put, unfinished
from remote.contents import PART, Bytes, checkpoint
from remote.server import Refusing, environment

from checkpointable import SaveError
from checkpointable.storage import waiting
from checkpointable.storage.paths import filesystem

LARGE = 3 * PART
TRIES_FOR_A_MINUTE = 13  # at least, with the pauses of ``store_at``


def failing_at(number: int):
    def fail(at: int) -> None:
        if at == number:
            raise ZeroDivisionError

    return fail


@pytest.mark.parametrize("at", [0, 3, 12])
def test_content_that_fails_while_it_is_read_raises_as_it_is_and_leaves_nothing(place, store_at, at):
    store = store_at(place)
    with pytest.raises(ZeroDivisionError):
        store.write(Bytes(checkpoint(LARGE), failing_at(at)), store.path("a.ckpt"), overwrite=False)
    gc.collect()
    assert names(place) == []
    assert place.startswith("memory") or unfinished(place) == []


def test_fsspecs_own_file_left_by_an_exception_is_completed_and_cut_short(s3):
    """The twin: why uploads are completed by hand."""
    files, path = filesystem(f"{s3}/a.ckpt")
    data = checkpoint(LARGE)
    with pytest.raises(ZeroDivisionError), files.open(path, "wb", block_size=PART) as file:
        file.writelines(Bytes(data, failing_at(12)).pieces())
    assert names(s3) == ["a.ckpt"]
    assert 0 < files.size(path) < len(data)


@pytest.mark.parametrize(("at", "overwrite"), [(0, False), (3, True), (12, False)])
def test_outage_in_an_upload_raises_with_the_cure_and_nothing_is_seen(s3, store_at, wire, at, overwrite):
    store = store_at(s3, tries=2)
    content = Bytes(checkpoint(LARGE), lambda number: wire.cut() if number == at else None)
    with pytest.raises(SaveError) as caught:
        store.write(content, store.path("a.ckpt"), overwrite=overwrite)
    for part in (f"cannot save {s3}/a.ckpt (2 tries): ", "Could not connect", "AWS_ENDPOINT_URL", "reached"):
        assert part in str(caught.value)
    gc.collect()
    wire.mend()
    assert names(s3) == []
    store.write(content, store.path("a.ckpt"), overwrite=overwrite)
    assert get(store.path("a.ckpt")) == content.data


def test_outage_while_a_file_is_overwritten_leaves_the_old_one(s3, store_at, wire):
    store, old = store_at(s3, tries=2), checkpoint(epoch=1)
    path = put(store.path("a.ckpt"), old)
    with pytest.raises(SaveError):
        store.write(Bytes(checkpoint(LARGE), lambda number: number == 8 and wire.cut()), path, overwrite=True)
    wire.mend()
    assert get(path) == old


def test_outage_that_ends_before_the_last_try_is_not_noticed(s3, store_at, wire):
    store = store_at(s3, tries=TRIES_FOR_A_MINUTE)
    wire.mend_after_seconds = 0.5
    content = Bytes(checkpoint(LARGE), lambda number: number == 8 and wire.cut())
    store.write(content, store.path("a.ckpt"), overwrite=False)
    assert wire.mend_after_seconds is None, "it was cut"
    assert get(store.path("a.ckpt")) == content.data


def test_killed_server_that_is_started_again_takes_the_next_save(s3, store_at, server):
    store = store_at(s3, tries=1)
    content = Bytes(checkpoint(LARGE), lambda number: number == 8 and server.kill())
    with pytest.raises(SaveError, match=r"one try.* Check that the path is right, and can be reached"):
        store.write(content, store.path("a.ckpt"), overwrite=False)
    server.start()
    make_bucket(s3.rpartition("/runs/")[0])  # its memory died with it
    assert names(s3) == []
    store.write(content, store.path("a.ckpt"), overwrite=False)
    assert get(store.path("a.ckpt")) == content.data


def test_server_that_hangs_is_given_up_and_takes_the_next_save_when_it_continues(s3, store_at, server, monkeypatch):
    store = store_at(s3, tries=1, timeout_seconds=1)
    content = Bytes(checkpoint(LARGE), lambda number: server.stop() if number == 8 else None)
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 5.0)  # that the abort is waited for
    with pytest.raises(SaveError, match=r"one try\): no answer for 1 s\. Check that"):
        store.write(content, store.path("a.ckpt"), overwrite=False)
    server.resume()
    monkeypatch.undo()
    assert names(s3) == []
    store_at(s3).write(Bytes(content.data), store.path("a.ckpt"), overwrite=False)
    assert get(store.path("a.ckpt")) == content.data


@pytest.mark.parametrize("overwrite", [True, False])
def test_lost_answer_to_the_completion_is_no_failure_and_no_taken_name(s3, store_at, wire, overwrite):
    store, content = store_at(s3, tries=TRIES_FOR_A_MINUTE), Bytes(checkpoint(PART))
    wire.lose_answer_to = re.compile(r"POST .*a\.ckpt\?uploadId=")
    wire.mend_after_seconds = 1.0
    store.write(content, store.path("a.ckpt"), overwrite=overwrite)
    assert wire.lose_answer_to is None
    assert get(store.path("a.ckpt")) == content.data
    assert len([request for request in wire.requests if request.startswith("PUT")]) <= 4, "it was uploaded only once"


def test_name_taken_by_another_run_during_the_upload_stays_with_it(s3, store_at):
    store, other = store_at(s3), checkpoint(run_id="other")
    path = store.path("a.ckpt")
    content = Bytes(checkpoint(LARGE), lambda number: put(path, other) if number == 12 else None)
    with pytest.raises(FileExistsError):
        store.write(content, path, overwrite=False)
    assert get(path) == other
    assert unfinished(s3) == []


def test_name_taken_by_the_same_bytes_during_the_upload_is_no_failure(s3, store_at):
    """As where the package completes an upload once more, because an answer was lost."""
    store, data = store_at(s3), checkpoint(LARGE)
    path = store.path("a.ckpt")
    store.write(Bytes(data, lambda number: put(path, data) if number == 12 else None), path, overwrite=False)
    assert get(path) == data


class Changing(Bytes):
    """Bytes that change while they are uploaded, so many times."""

    def __init__(self, data: bytes, times: int) -> None:
        super().__init__(data)
        self.good, self.times = data, times

    def pieces(self):
        self.times -= 1
        bad = bytearray(self.good)
        bad[1000] ^= 1 << self.times % 8
        self.data = bytes(bad) if self.times >= 0 else self.good
        return super().pieces()


def test_file_that_arrives_otherwise_is_uploaded_again(place, store_at):
    store, content = store_at(place), Changing(checkpoint(PART), 1)
    store.write(content, store.path("a.ckpt"), overwrite=False)
    assert get(store.path("a.ckpt")) == content.good


def test_file_that_never_arrives_as_it_was_sent_raises_and_is_deleted(place, store_at):
    store = store_at(place)
    with pytest.raises(
        SaveError, match=r"\(3 tries\): the uploaded file differs from what was sent: .* Save somewhere else"
    ):
        store.write(Changing(checkpoint(PART), 100), store.path("a.ckpt"), overwrite=False)
    assert names(place) == []


def test_refused_upload_is_not_tried_again(s3, store_at, monkeypatch):
    refusing = Refusing()
    for name, value in environment(refusing.port).items():
        monkeypatch.setenv(name, value)
    _forget_clients()
    try:
        with pytest.raises(SaveError, match=r"\(one try\): .* right to list, read, write and delete there") as caught:
            store_at(s3).write(Bytes(checkpoint()), f"{s3}/a.ckpt", overwrite=True)
        assert isinstance(caught.value.__cause__, PermissionError)
    finally:
        refusing.close()
        _forget_clients()


def _forget_clients() -> None:
    """So that the next one reads the environment anew."""
    filesystem("s3://bucket")[0].clear_instance_cache()
