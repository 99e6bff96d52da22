"""Names longer than file systems allow: refused if the template is, replaced if a value makes it so."""

from __future__ import annotations

import pytest
from nets import Net, files, loader, trainer

from checkpointable import CheckpointableWarning, PolicyError


@pytest.mark.parametrize("template", ["x" * 250, "é" * 125, "a/" + "x" * 250 + "/{epoch}"])
def test_template_that_is_too_long_alone_is_refused_with_the_limit(template):
    with pytest.raises(PolicyError, match="longer than the 240 bytes of a file name; choose a shorter one"):
        Net(filename=template)


def test_name_that_a_value_makes_too_long_is_replaced_and_the_file_is_saved(tmp_path):
    net = Net(dirpath=tmp_path, filename="{step:0250d}", best_filename="{epoch:0250d}", save_interval=2)
    with pytest.warns(CheckpointableWarning) as caught:
        trainer(tmp_path).fit(net, loader(3), loader(1))
    messages = [str(warning.message) for warning in caught if warning.category is CheckpointableWarning]
    assert messages
    assert all("Choose a shorter template" in message for message in messages)
    assert files(tmp_path) == ["best_epoch_0_batch_3.ckpt", "epoch_0_batch_2.ckpt"]
