"""What ``doctor`` says of a URL: of a store that does all, that lacks something, refuses, hangs or is gone."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from remote.conftest import names, put, unfinished
from remote.contents import checkpoint
from remote.server import Refusing, environment
from storage.test_probes import of

from checkpointable import PolicyError, RemoteError, doctor
from checkpointable.catalog.directory_report import _remote
from checkpointable.storage.paths import filesystem
from checkpointable.storage.remote_probes import RemoteProbe

ASKED = ["answer", "listing", "small file", "upload", "taken name", "deleting"]


def test_s3_that_does_all_is_ok_and_nothing_is_left(s3, wire):
    put(f"{s3}/a.ckpt", checkpoint())
    wire.reset()
    found = doctor(s3)
    assert [finding.outcome for finding in found if finding.what in ASKED] == ["ok"] * 6
    assert "ms" in of("answer", found).detail
    assert of("upload", found).detail == "two parts were uploaded, completed and compared."
    assert of("checkpoints", found).detail.startswith("1 by their descriptions; ")
    assert names(s3) == ["a.ckpt"]
    assert unfinished(s3) == []
    written = [request for request in wire.requests if request.split()[0] in ("PUT", "POST", "DELETE")]
    assert {bool(re.search(r"/runs/a/\.checkpointable-\w+\.tmp", request)) for request in written} == {True}


def test_memory_takes_a_name_again_which_is_a_warning_and_nothing_is_made(tmp_path):
    files = filesystem("memory://x")[0]
    before = list(files.pseudo_dirs)
    url = f"memory://{tmp_path.name}/runs"
    found = doctor(url)
    assert found[0].detail.startswith("it does not exist. A fit makes it when it starts; memory:// was examined")
    assert found.problems == []
    assert (of("taken name", found).outcome, of("taken name", found).cure) == (
        "warning",
        "Give each run a dirpath of its own.",
    )
    assert (names(url), files.pseudo_dirs) == ([], before)


def test_files_at_a_url_that_are_damaged_or_left_are_found(place):
    put(f"{place}/a.ckpt", checkpoint()[:-100])
    put(f"{place}/.checkpointable-0a.tmp", b"half")
    files, path = filesystem(f"{place}/.checkpointable-0a.tmp")
    found = doctor(place)
    assert of("damaged file", found).detail.startswith(f"{place}/a.ckpt: ")
    assert "temporary files" not in [finding.what for finding in found]
    if place.startswith("memory"):
        files.store[path].modified = datetime(2020, 1, 1, tzinfo=UTC)
        found = of("temporary files", doctor(place))
        assert (found.outcome, found.detail) == ("warning", f"1 older than a day: {place}/.checkpointable-0a.tmp.")
    assert names(place) == [".checkpointable-0a.tmp", "a.ckpt"]


def test_unfinished_upload_is_found_and_stays(s3):
    files, path = filesystem(f"{s3}/b.ckpt")
    bucket, _, key = path.partition("/")
    files.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    files.call_s3("create_multipart_upload", Bucket=bucket, Key="other/c.ckpt")
    found = of("unfinished uploads", doctor(s3))
    assert f": {s3}/b.ckpt." in found.detail
    assert "other" not in found.detail
    assert sorted(unfinished(s3)) == ["other/c.ckpt", key]


def test_probe_that_deletes_nothing_leaves_a_file_that_is_found(s3, monkeypatch):
    """The twin."""
    monkeypatch.setattr(RemoteProbe, "_delete", lambda probe: "")
    doctor(s3)
    assert len(names(s3)) == 1


def test_bucket_that_is_not_there_is_a_problem_with_its_cure(wire):
    found = doctor("s3://there-is-no-such-bucket/runs")
    assert of("small file", found).outcome == "problem"
    assert of("small file", found).cure == "Make the bucket (it is not made here), or correct the path."


def test_store_that_is_gone_is_one_problem_with_a_cure(s3, wire):
    wire.cut()
    (found,) = doctor(s3)
    assert (found.what, found.outcome) == ("answer", "problem")
    assert "Could not connect" in found.detail
    assert "AWS_ENDPOINT_URL" in found.cure


def test_store_that_hangs_is_one_problem_after_a_limited_time(s3, server):
    server.stop()
    try:
        (found,) = _remote(s3, 1)
    finally:
        server.resume()
    assert (found.outcome, found.detail) == ("problem", "no answer for 1 s.")
    assert "can be reached from this machine" in found.cure


def test_store_that_is_gone_in_the_middle_is_a_problem_and_names_what_may_be_left(s3, wire):
    wire.lose_answer_to = re.compile(r"PUT .*\.tmp")
    found = doctor(s3)
    assert of("answer", found).outcome == "ok"
    assert of("small file", found).outcome == "problem"
    left = found[[finding.what for finding in found].index("deleting") + 1]
    assert re.match(rf"whether {s3}/\.checkpointable-\w+\.tmp is gone: ", left.detail)
    assert (left.outcome, left.cure) == ("unknown", "Delete it by hand.")


def test_ctrl_c_in_the_middle_leaves_nothing(s3, monkeypatch):
    def interrupt(probe):
        assert len(names(s3)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(RemoteProbe, "_upload", interrupt)
    with pytest.raises(KeyboardInterrupt):
        doctor(s3)
    assert names(s3) == []


def test_store_that_denies_everything_has_problems_with_their_cures(s3, monkeypatch):
    refusing = Refusing()
    for name, value in environment(refusing.port).items():
        monkeypatch.setenv(name, value)
    filesystem(s3)[0].clear_instance_cache()
    try:
        found = doctor(s3)
    finally:
        refusing.close()
        filesystem(s3)[0].clear_instance_cache()
    assert [finding.outcome for finding in found if finding.what in ASKED][:4] == ["problem"] * 4
    assert "s3:ListBucket" in of("answer", found).cure
    assert "list, read, write and delete" in of("small file", found).cure


def test_url_of_a_file_or_of_no_file_system_is_refused(place):
    url = put(f"{place}/a.ckpt", checkpoint())
    with pytest.raises(PolicyError, match=r"it is a file\. Pass the directory it is in"):
        doctor(url)
    with pytest.raises(RemoteError, match="Correct the path"):
        doctor("nothing://bucket/runs")
