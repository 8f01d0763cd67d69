"""Zip archives that `torch.save` did not write are refused."""

import zipfile

import pytest
from example_instructions import zipped
from example_refusals import refuse


def test_compressed_entries_are_refused_before_they_are_unpacked(tmp_path):
    bomb = zipped(tmp_path / "bomb.pth", b"\0" * (200 << 20), compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    refuse(bomb, "compressed or encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_listed_twice_is_refused(tmp_path):
    refuse(zipped(tmp_path / "a.pth", b"}.", others=[("archive/data.pkl", b"}.")]), "lists a file twice")


def test_an_archive_of_something_else_is_named(tmp_path):
    refuse(zipped(tmp_path / "a.pth", b"hello", name="word/document.xml"), "not one by torch.save")
    script = zipped(tmp_path / "b.pth", b"}.", others=[("archive/constants.pkl", b")."), ("archive/code/a.py", b"")])
    refuse(script, "TorchScript")
