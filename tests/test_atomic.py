"""What is written under `replacing` appears whole or not at all."""

import pytest
from samjax.atomic import replacing


def fail(temporary):
    temporary.write_text("half")
    raise RuntimeError("stopped")


def test_a_file_appears_when_the_block_ends(tmp_path):
    with replacing(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt") as temporary:
        fail(temporary)
    assert not list(tmp_path.iterdir())


def test_what_exists_is_kept_unless_replacing_it_is_asked_for(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileExistsError, match="exists already"), replacing(tmp_path / "a.txt"):
        pass
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt", overwrite=True) as temporary:
        fail(temporary)
    assert (tmp_path / "a.txt").read_text() == "old"
    with replacing(tmp_path / "a.txt", overwrite=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_replaces_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with replacing(tmp_path / "folder", overwrite=True) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "folder", overwrite=True):
        pass  # nothing was written, so there is nothing to put in its place
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
