"""`samjax convert`, `info`, `warmup` and `--version`."""

import subprocess
import sys

import numpy as np
import pytest
from example_models import random_sam


def test_info_and_convert_print_the_same_checksum(samjax, checkpoint, tmp_path):
    code, before, _ = samjax("info", checkpoint)
    assert code == 0
    code, after, _ = samjax("convert", checkpoint, tmp_path / "native")
    assert code == 0
    checksums = [next(line for line in text.splitlines() if "checksum" in line) for text in (before, after)]
    assert checksums[0] == checksums[1]
    code, _, error = samjax("convert", checkpoint, tmp_path / "native")
    assert code == 2
    assert "exists already" in error


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word():
    command = subprocess.Popen(
        [sys.executable, "-m", "samjax", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    command.stdout.close()
    _, error = command.communicate()
    assert (command.returncode, error) == (141, b"")


def test_what_a_training_program_saved_is_told_and_extra_tensors_dropped(samjax, checkpoint, tmp_path):
    from example_pickles import Built, Tensor, save

    from samjax.convert.state_dict import open_state_dict

    tensors = {name: Tensor(tensor.read()) for name, tensor in open_state_dict(checkpoint).tensors.items()}
    content = {"config": Built("my_pkg.Config"), "model": tensors | {"loss.scale": Tensor(np.float32([1]))}}
    path = save(tmp_path / "run.pth", content)
    code, _, error = samjax("info", path)
    assert code == 2
    assert "--drop 'loss.*'" in error
    drop = ("--drop", "loss.*", "--drop", "teacher.*")
    code, told, _ = samjax("info", path, *drop)
    assert code == 0
    rows = dict(line.split(maxsplit=1) for line in told.splitlines()[1:])
    assert rows["read"].split() == ["from", "model"]
    assert rows["skipped"] == "config (my_pkg.Config)"
    assert rows["dropped"] == "loss.scale"
    assert rows["warning"] == "no tensor has a name like 'teacher.*', which was to be dropped"
    code, converted, error = samjax("convert", path, tmp_path / "native", *drop)
    assert code == 0
    assert "skipped               config (my_pkg.Config)" in converted
    assert "dropped               loss.scale" in converted
    assert "warning: " in error
    assert rows["checksum"] in converted


@pytest.mark.parity
def test_verify_prints_the_error_of_every_stage(samjax, checkpoint, tmp_path):
    pytest.importorskip("torch")
    from parity.reference import import_segment_anything

    import_segment_anything()
    code, printed, _ = samjax("convert", checkpoint, tmp_path / "small.pth", "--verify")
    assert code == 0, printed
    assert "image embedding" in printed
    assert "box: mask pixels that differ" in printed
    assert "TOO LARGE" not in printed


def test_verify_says_before_any_work_that_the_reference_is_missing(samjax, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    code, _, error = samjax("convert", checkpoint, tmp_path / "small.pth", "--verify")
    assert code == 2
    assert "pip install torch" in error
    assert not (tmp_path / "small.pth").exists()


def test_info_lists_parameters_by_the_names_that_training_takes(samjax, checkpoint):
    from flax.traverse_util import flatten_dict

    code, printed, _ = samjax("info", checkpoint, "--parameters")
    assert code == 0
    expected = flatten_dict(random_sam().params, sep="/")
    listed = dict(line.split(maxsplit=1) for line in printed.splitlines() if line.startswith("  ") and "/" in line)
    assert {name: listed[name] for name in expected} == {
        name: " x ".join(map(str, leaf.shape)) for name, leaf in expected.items()
    }
    assert samjax("info", checkpoint)[1] in printed


def test_warmup_reports_compile_and_run_time(samjax, checkpoint):
    sizes = ("--points", "1", "--prompts", "1", "--photo-sizes", "60", "90")
    code, printed, _ = samjax("warmup", "--checkpoint", checkpoint, *sizes)
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].split() == ["program", "compile", "s", "run", "s"]
    assert len(lines) == 5
    assert lines[-1].startswith("upscale to 60 x 90")


def test_the_version_is_printed(samjax):
    assert samjax("--version")[1].startswith("samjax ")
