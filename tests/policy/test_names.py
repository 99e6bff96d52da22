"""What a checkpoint file is called."""

from __future__ import annotations

import math
import re

import pytest

from checkpointable._errors import CheckpointableError, PolicyError
from checkpointable.policy import names

VALUES = {"epoch": 3, "batch": 40, "step": 1240, "val_loss": 0.12345, "val/loss": 0.5, "monitor": "val_loss"}


def wrong(template: object) -> str:
    return "\n".join(names.problems(template, "filename"))


@pytest.mark.parametrize(
    ("template", "stem"),
    [
        ("epoch_{epoch}_batch_{batch}", "epoch_3_batch_40"),
        ("best_{monitor}_epoch_{epoch}", "best_val_loss_epoch_3"),
        ("{epoch:02d}-{batch:05d}-{step:08d}", "03-00040-00001240"),
        ("{val_loss:.3f}", "0.123"),
        ("{val_loss:.1e}", "1.2e-01"),
        ("{epoch:.1f}", "3.0"),
        ("{epoch:+d}", "+3"),
        ("{monitor:>10}", "  val_loss"),
        ("plain", "plain"),
        ("{{epoch}}_{epoch}", "{epoch}_3"),
        ("{epoch}{epoch}", "33"),
    ],
)
def test_template_of_usual_forms_renders_its_fields(template, stem):
    assert names.problems(template, "filename") == []
    assert names.render(template, VALUES) == stem


@pytest.mark.parametrize(("value", "text"), [(3.0, "003"), (7, "007")])
def test_whole_format_spec_takes_a_float_that_is_whole(value, text):
    assert names.problems("{val_loss:03d}", "filename") == []
    assert names.render("{val_loss:03d}", {"val_loss": value}) == text


def test_whole_format_spec_with_a_fraction_is_refused_naming_template_field_and_value():
    with pytest.raises(PolicyError, match=re.escape("'{val_loss:d}': val_loss is 0.5, and Unknown format code 'd'")):
        names.render("{val_loss:d}", {"val_loss": 0.5})


def test_auto_insert_puts_the_name_before_each_value():
    template = "{epoch:02d}-{val_loss:.2f}"
    assert names.render(template, VALUES, insert_names=True) == "epoch=03-val_loss=0.12"
    assert names.render(template, VALUES) == "03-0.12"


def test_auto_insert_leaves_the_monitor_without_its_name():
    assert names.render("best_{monitor}_{epoch}", VALUES, insert_names=True) == "best_val_loss_epoch=3"


def test_auto_insert_of_a_metric_with_a_slash_stays_in_the_directory():
    assert names.render("{val/loss:.1f}", VALUES, insert_names=True) == "val_loss=0.5"


def test_metric_with_a_slash_renders_its_value():
    assert names.problems("{val/loss:.2f}", "filename") == []
    assert names.render("{val/loss:.2f}", VALUES) == "0.50"


@pytest.mark.parametrize("monitor", ["val/loss", "val\\loss", "val\0loss"])
def test_value_with_a_separator_becomes_an_underscore(monitor):
    assert names.render("best_{monitor}", {"monitor": monitor}) == "best_val_loss"
    assert f"best_{monitor}" != "best_val_loss"  # the twin: plain formatting keeps it


def test_field_that_is_missing_gives_nan_whatever_its_spec():
    assert names.render("{epoch}_{later:.3f}", VALUES) == "3_nan"
    assert names.render("{later:05d}", VALUES, insert_names=True) == "later=nan"


def test_value_that_is_nan_or_infinite_renders():
    assert names.render("{a:.2f}_{b}", {"a": math.nan, "b": math.inf}) == "nan_inf"


def test_value_of_zero_is_not_taken_for_missing():
    assert names.render("{epoch}_{val_loss:.1f}", {"epoch": 0, "val_loss": 0.0}) == "0_0.0"


@pytest.mark.parametrize("template", ["runs/{epoch}", "a/b/{epoch:03d}_{batch}", "..{epoch}", "a..b/{epoch}"])
def test_template_with_subdirectories_is_allowed(template):
    assert names.problems(template, "filename") == []
    assert names.render(template, VALUES).count("/") == template.count("/")


@pytest.mark.parametrize("template", ["../{epoch}", "a/../{epoch}", "..", "/tmp/{epoch}", "~/{epoch}", "~user/{epoch}"])
def test_template_out_of_the_directory_is_refused_with_the_cure(template):
    assert "leads out of the directory; use dirpath to choose another" in wrong(template)


@pytest.mark.parametrize("template", ["last", "best"])
def test_template_with_the_name_of_a_link_is_refused_with_the_cure(template):
    assert f"{template}.ckpt is the link to the {template} file; choose another" in wrong(template)
    assert names.problems(f"{template}_{{epoch}}", "filename") == []


@pytest.mark.parametrize("template", ["last-v1", "Best", "LAST-V12", "./best-v3", "runs/last", "{epoch}/best"])
def test_template_with_the_name_of_a_link_of_some_run_is_refused_naming_it(template):
    name = template.rpartition("/")[2]
    assert f"filename={template!r}: {name}.ckpt is the link to the {name[:4].lower()} file; choose another" in wrong(
        template
    )


@pytest.mark.parametrize("template", ["last-v", "last-vx", "last-v1b", "lastly", "the_best", "last/{epoch}"])
def test_template_that_only_looks_like_the_name_of_a_link_is_allowed(template):
    assert names.problems(template, "filename") == []
    assert names.render(template, VALUES) == template.format(epoch=3)


@pytest.mark.parametrize(
    ("template", "monitor", "stem"),
    [
        ("{monitor}", "best", "best_"),
        ("{monitor}", "Last-v2", "Last-v2_"),
        ("last-v{epoch}", "", "last-v3_"),
        ("{epoch}/{monitor}", "last", "3/last_"),
        ("best{monitor}", "", "best_"),
    ],
)
def test_name_that_renders_to_that_of_a_link_gets_an_underscore(template, monitor, stem):
    assert names.problems(template, "filename") == []
    assert names.render(template, {**VALUES, "monitor": monitor}) == stem


@pytest.mark.parametrize("template", [None, 3, 1.5, b"bytes", "", "   ", ["{epoch}"]])
def test_template_that_is_none_is_refused_showing_what_is_allowed(template):
    text = wrong(template)
    assert f"filename={template!r}: not a template" in text
    assert "allowed: a name with fields like {epoch}, {batch:05d}, {val_loss:.3f}, without '.ckpt'" in text


@pytest.mark.parametrize("template", ["{epoch", "epoch}", "{epoch!}", "{"])
def test_template_that_does_not_parse_is_refused_showing_what_is_allowed(template):
    assert re.search(r"filename=.*allowed: a name with fields like \{epoch\}", wrong(template))


@pytest.mark.parametrize("template", ["{}", "{0}", "{12:d}", "{ }", "a_{}_b"])
def test_field_without_a_name_is_refused_showing_what_is_allowed(template):
    assert re.search(r"a field without a name; allowed: a name with fields like", wrong(template))


@pytest.mark.parametrize("template", ["{epoch!r}", "{val_loss!s:5}"])
def test_field_with_a_conversion_is_refused_showing_what_is_allowed(template):
    assert re.search(r"conversions like '!r' are not allowed; allowed:", wrong(template))


@pytest.mark.parametrize(
    ("template", "field", "spec"),
    [
        ("{epoch:zz}", "epoch", "zz"),
        ("{epoch:s}", "epoch", "s"),
        ("{val_loss:s}", "val_loss", "s"),
        ("{val_loss:x}", "val_loss", "x"),
        ("{val_loss:.f}", "val_loss", ".f"),
        ("{monitor:d}", "monitor", "d"),
        ("{monitor:.2f}", "monitor", ".2f"),
        ("{epoch:{width}}", "epoch", "{width}"),
    ],
)
def test_format_spec_that_never_fits_is_refused_naming_field_and_spec(template, field, spec):
    assert f"filename={template!r}: {field} cannot be written as {spec!r}" in wrong(template)


def test_template_with_several_problems_reports_all_of_them():
    found = names.problems("/{epoch:zz}_{val_loss:s}_{}_{batch!r}", "best_filename")
    assert len(found) == 5
    assert all(problem.startswith("best_filename=") for problem in found)


def test_unknown_fields_of_a_template_are_listed_in_order():
    assert names.unknown_fields("{epoch}_{acc}_{val/f1:.2f}", VALUES) == ["acc", "val/f1"]
    assert names.unknown_fields("plain_{epoch}", VALUES) == []


def test_versions_count_as_lightning_does():
    assert [names.versioned("a/epoch_3", n) for n in range(3)] == [
        "a/epoch_3.ckpt",
        "a/epoch_3-v1.ckpt",
        "a/epoch_3-v2.ckpt",
    ]


def test_policy_error_is_a_value_error_and_one_of_ours():
    assert issubclass(PolicyError, ValueError)
    assert issubclass(PolicyError, CheckpointableError)
