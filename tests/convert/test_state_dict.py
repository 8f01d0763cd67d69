"""The format follows from the content; files of no known format are named."""

import pickle

import pytest
from example_refusals import refuse

FOREIGN = {
    "is empty": b"",
    "its pickle is damaged": pickle.dumps(0x1950A86A20F9469CFC6C, 2),  # the beginning of PyTorch's before 1.6
    "single NumPy array": b"\x93NUMPY\x01\x00",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "web page": b"\n<!DOCTYPE html><html>not found</html>",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "no known format": b"something else entirely",
}


@pytest.mark.parametrize("problem", FOREIGN)
def test_a_file_of_another_format_is_named(problem, tmp_path):
    (tmp_path / "sam.pth").write_bytes(FOREIGN[problem])
    refuse(tmp_path / "sam.pth", problem)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    refuse(tmp_path / "nowhere.pth", "does not exist")
    refuse(tmp_path, "holds no checkpoint")
