"""The file of what was tuned: nothing in it can be changed unnoticed, and nothing is taken in another type."""

import json

import numpy as np
import pytest
from example_models import SMALL

from samjax.checkpoint import CheckpointError, lazy
from samjax.config import MaskThresholds
from samjax.convert import read_tuned, tuned_file, write_tuned
from samjax.convert.safetensors_file import read_metadata, read_safetensors, write_safetensors
from samjax.tuned import Base, Tuned

KEY = "samjax_tuned"
TUNED = Tuned(
    Base("base", "0" * 64, SMALL),
    SMALL,
    {"mode": "lora", "targets": ("q", "v")},
    0.5,
    {"image_encoder/blocks/0/attn/qkv/lora_q/a": lazy(np.arange(6, dtype=np.float32).reshape(3, 2))},
    MaskThresholds(0.75, 0.5, 1.0),
    {"step": 3, "metrics": {"val/iou": 0.25}},
)


@pytest.fixture
def file(tmp_path):
    write_tuned(tmp_path / "tuned.safetensors", TUNED)
    return tmp_path / "tuned.safetensors"


def rewritten(file, changes, *, leaves=None, sealed=False):
    """The file with other fields in its header; `sealed` with the checksum of these."""
    header, leaves = read_metadata(file), leaves or read_safetensors(file)
    fields = {**json.loads(header[KEY]), **changes}
    if sealed:
        del fields["checksum"]
        fields["checksum"] = tuned_file._checksum(fields, TUNED.thresholds, leaves)
    changed = file.with_name("changed.safetensors")
    write_safetensors(changed, leaves, {**header, KEY: json.dumps(fields)})
    return changed


def test_what_was_written_is_read_again(file):
    tuned = read_tuned(file)
    assert tuned.tune == {"mode": "lora", "targets": ["q", "v"]}
    for field in ("base", "config", "scale", "thresholds", "provenance"):
        assert getattr(tuned, field) == getattr(TUNED, field)
    for name, leaf in TUNED.leaves.items():
        np.testing.assert_array_equal(tuned.leaves[name].read(), leaf.read())


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": 7.0},
        {"tune": {"mode": "decoder"}},
        {"provenance": {}},
        {"base": {"name": "other", "checksum": "1" * 64, "config": {}}},
        {"checksum": "0" * 64},
    ],
    ids=str,
)
def test_a_header_that_was_changed_does_not_fit_its_checksum(file, changes):
    with pytest.raises(CheckpointError, match=r"changed\.safetensors is damaged: its checksum does not fit; export it"):
        read_tuned(rewritten(file, changes))


def test_nor_do_other_thresholds(file, tmp_path):
    header = {name: text.replace("0.5", "0.625") if name != KEY else text for name, text in read_metadata(file).items()}
    write_safetensors(tmp_path / "changed.safetensors", read_safetensors(file), header)
    with pytest.raises(CheckpointError, match="checksum does not fit"):
        read_tuned(tmp_path / "changed.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": float("nan")}, "scale is a finite number, got nan"),
        ({"scale": float("inf")}, "scale is a finite number, got inf"),
        ({"scale": "2"}, "scale is a finite number, got '2'"),
        ({"scale": True}, "scale is a finite number, got True"),
        ({"tune": [1]}, "tune.* not of their kind"),
        ({"tune": {}}, "damaged.*mode"),
        ({"tune": {"mode": 1}}, "tune.* not of their kind"),
        ({"provenance": "mine"}, "provenance.* not of their kind"),
        ({"base": []}, "damaged"),
        ({"base": {"name": 3, "checksum": "0" * 64, "config": {}}}, "damaged"),
    ],
    ids=str,
)
def test_fields_of_other_kinds_are_refused(file, changes, message):
    assert read_tuned(rewritten(file, {}, sealed=True)).scale == 0.5
    with pytest.raises(CheckpointError, match=message):
        read_tuned(rewritten(file, changes, sealed=True))


def test_so_are_parameters_that_are_not_float32(file):
    halved = {"neck": lazy(np.zeros(2, np.float16))}
    with pytest.raises(CheckpointError, match="parameters are float32, neck is float16"):
        read_tuned(rewritten(file, {}, leaves=halved, sealed=True))
