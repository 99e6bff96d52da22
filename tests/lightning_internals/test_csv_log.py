"""The rows of a CSV log: where each ends, which are cut, and what is kept of them."""

from __future__ import annotations

import fsspec
import pytest
from lightning.pytorch.loggers import CSVLogger
from nets import Net, loader, trainer

from checkpointable import latest
from checkpointable.lightning_internals.csv_log import Rows

HEADER = "epoch,step,text\r\n"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", 0),
        (HEADER, 0),
        (HEADER + "0,1,a\r\n", 1),
        (HEADER + "0,1,a\r\n0,2,b", 1),  # torn by a power cut
        (HEADER + '0,1,"two\r\nlines"\r\n0,2,b\r\n', 2),
        (HEADER + '0,1,"a ""quoted"" word, and a comma"\r\n', 1),
        (HEADER + "0,1,\x0b\u2028\x85\r\n0,2,b\r\n", 2),  # no line ends for a CSV
    ],
)
def test_rows_are_counted_as_a_csv_has_them(text, rows):
    assert len(Rows(text).ends) == rows


@pytest.mark.parametrize("stay", range(5))
def test_text_that_is_cut_is_kept_with_the_header(stay):
    rows = ['0,1,"two\r\nlines"\r\n', "0,2,b\r\n", "0,3,c\r\n"]
    kept, cut = Rows(HEADER + "".join(rows)).cut(stay)
    assert kept == HEADER + "".join(rows[:stay])
    assert cut == (HEADER + "".join(rows[stay:]) if stay < 3 else "")


def test_torn_last_row_is_cut_and_kept_beside_the_others():
    assert Rows(HEADER + "0,1,a\r\n0,2,").cut(2) == (HEADER + "0,1,a\r\n", HEADER + "0,2,")


class Late(Net):
    """Logs a value that earlier batches have not logged."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.global_step > 6:
            self.log("late", 1.0)


def fit(root, logs, epochs, kind=Net):
    made = trainer(root, logger=CSVLogger(logs), max_epochs=epochs, log_every_n_steps=1)
    made.fit(kind(dirpath=root / "files", every_n_epochs=1), loader(4), ckpt_path=latest(root / "files"))


def test_value_that_is_new_after_a_resume_gets_a_column_and_the_rows_before_it_stay(tmp_path):
    fit(tmp_path, tmp_path, 1)
    fit(tmp_path, tmp_path, 2, Late)
    header, *rows = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    assert header == "epoch,late,step,train_loss_epoch,train_loss_step"
    assert [row.split(",")[2] for row in rows] == ["0", "1", "2", "3", "3", "4", "5", "6", "7", "7"]


def test_log_on_a_remote_file_system_goes_on_and_what_is_cut_is_kept_there(tmp_path):
    memory = fsspec.filesystem("memory")
    logs = "memory://logs_of_a_resumed_run"
    fit(tmp_path, logs, 1)
    with memory.open(f"{logs}/lightning_logs/version_0/metrics.csv", "ab") as file:
        file.write(b"0,77,,0.5\r\n")
    fit(tmp_path, logs, 2)
    text = memory.cat(f"{logs}/lightning_logs/version_0/metrics.csv").decode()
    assert [row.split(",")[1] for row in text.splitlines()[1:]] == ["0", "1", "2", "3", "3", "4", "5", "6", "7", "7"]
    assert b"0,77" in memory.cat(f"{logs}/lightning_logs/version_0/metrics.csv.cut-1")
    assert len(memory.ls(f"{logs}/lightning_logs")) == 1
