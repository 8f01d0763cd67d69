"""Data that were changed are other data; where they lie, and what lies beside them, has no part."""

import os
from pathlib import Path

import pytest

from samjax.evaluation.datasets import fingerprint, identity_of


def write(folder: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


CONTENT = {"maps/a.bmp": b"12", "maps/a.mat": b"34", "a.json": b"[5]", "val.txt": b"a", "a.jpg": b"67", "b.tar": b"8"}


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "data", CONTENT)
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["maps/a.bmp", "maps/a.mat", "a.json", "val.txt"])
def test_annotations_of_the_same_size_are_others(folder, name):
    before = fingerprint(str(folder)), fingerprint(str(folder / name))
    state = (folder / name).stat()
    (folder / name).write_bytes(CONTENT[name][::-1] if len(CONTENT[name]) > 1 else b"b")
    os.utime(folder / name, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert fingerprint(str(folder)) != before[0]
    assert fingerprint(str(folder / name)) != before[1]


def test_photos_count_with_their_size_and_tars_with_their_time_too(folder):
    before = fingerprint(str(folder))
    os.utime(folder / "a.jpg", ns=(1, 1))
    assert fingerprint(str(folder)) == before
    (folder / "a.jpg").write_bytes(b"678")
    resized = fingerprint(str(folder))
    assert resized != before
    os.utime(folder / "b.tar", ns=(1, 1))
    assert fingerprint(str(folder)) != resized


def test_files_that_came_or_went_or_have_another_name_are_seen(folder):
    before = fingerprint(str(folder))
    (folder / "b.tar").rename(folder / "c.tar")
    renamed = fingerprint(str(folder))
    write(folder, {"more/d.png": b""})
    assert len({before, renamed, fingerprint(str(folder))}) == 3


def test_where_data_lie_and_what_is_no_data_has_no_part(folder, tmp_path):
    before = fingerprint(str(folder))
    write(folder, {"readme.md": b"", ".hidden.json": b"", "results/plot.png": b""})
    moved = folder.rename(tmp_path / "moved")
    assert fingerprint(str(moved), [moved / "results"]) == before
    assert fingerprint(str(moved), [tmp_path]) == fingerprint(str(moved))  # what lies above is not what is meant


def test_of_data_on_a_server_annotations_and_tars_count_with_their_time():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({f"/bucket/{name}": data for name, data in CONTENT.items()})
    try:
        places = ("memory://bucket", "memory://bucket/a.json", "memory://bucket/b.tar")
        before = [fingerprint(place) for place in places]
        assert [fingerprint(place) for place in places] == before
        memory.pipe({"/bucket/a.json": b"[6]", "/bucket/b.tar": b"9"})
        assert not set(before) & {fingerprint(place) for place in places}
    finally:
        memory.rm("/bucket", recursive=True)


def test_of_a_server_that_lists_no_folders_files_count_that_are_named():
    assert fingerprint("memory://nothing/here") == fingerprint("memory://nothing/there")


def test_paths_are_those_that_the_data_set_is_opened_with(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    expected = {"format": "coco", "images": fingerprint(str(folder)), "annotations": fingerprint(f"{folder}/a.json")}
    for spec in (
        f"coco={folder},{folder}/a.json",
        "coco=~/data, ~/data/a.json",
        f"coco=file://{folder}/,~/data/a.json",
    ):
        assert identity_of(spec) == expected
    without = identity_of("coco=~/data,~/data/a.json", [folder / "a.json"])
    assert without.keys() == {"format", "images"}
    assert without["images"] != expected["images"]


@pytest.mark.parametrize("form", ["bsds", "sbd"])
def test_a_split_is_no_folder_of_the_current_one(folder, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    expected = {"format": form, "split": "val", "folder": fingerprint(str(folder))}
    assert identity_of(f"{form}={folder},val") == expected
    write(tmp_path, {"val/x.json": b""})
    assert identity_of(f"{form}={folder},val") == expected
