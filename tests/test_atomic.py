"""What is written under `replacing` appears whole or not at all."""

import pytest

from samjax.atomic import replacing, scratch_prefix


def no_names(folder):
    return []


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
    with replacing(tmp_path / "folder", overwrite=True, foreign=no_names) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "folder", overwrite=True, foreign=no_names):
        pass  # nothing was written, so there is nothing to put in its place
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]


def test_a_folder_of_others_is_never_replaced(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with replacing(folder, overwrite=True) as temporary:  # an empty one is nobody's
        temporary.mkdir()
        for name in "dacb":
            (temporary / name).touch()
    with (
        pytest.raises(FileExistsError, match=r"holds other things than .* \(a, b, c, …\); it is not replaced"),
        replacing(folder, overwrite=True),
    ):
        pytest.fail("the block must not run")
    assert len(list(folder.iterdir())) == 4


def test_what_comes_into_a_folder_during_the_block_is_kept(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(FileExistsError, match=r"\(thesis.txt\)"), replacing(folder, overwrite=True):
        (folder / "thesis.txt").touch()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_names_may_be_as_long_as_file_systems_take(tmp_path):
    name = "n" * 251 + ".txt"
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
        (scratch,) = tmp_path.iterdir()
        assert scratch.name.startswith(scratch_prefix(name))
    assert (tmp_path / name).read_text() == "whole"
    assert scratch_prefix("n" * 60 + "1") != scratch_prefix("n" * 60 + "2")
