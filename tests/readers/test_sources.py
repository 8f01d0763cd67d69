"""Sources by what a recipe says."""

import pickle

import numpy as np
import pytest
from example_annotations import jpeg, png, tar_of

from samjax.readers.left_out import Reason
from samjax.readers.record import BadRecord
from samjax.readers.sources import FORMATS, Spread, open_sources, parse_spec


@pytest.fixture
def folders(tmp_path, write, sa1b_files, photo):
    """A tar with two photos, a folder with three of which one is bad, and label maps of two classes."""
    tar_of(tmp_path / "sa_000000.tar", sa1b_files([1, 2]))
    files = sa1b_files([1, 2, 3])
    files["sa_2.jpg"] = b"nothing"
    write(tmp_path / "folder", files)
    labels = np.zeros((40, 60), np.uint8)
    labels[:10, :10] = labels[20:30, :10] = 1
    write(tmp_path, {"photos/a.jpg": jpeg(photo), "maps/a.png": png(labels)})
    return tmp_path


def test_sources_stand_behind_one_another(folders):
    specs = (f"sa1b={folders}/sa_000000.tar", f"labelmap={folders}/photos,{folders}/maps", f"sa1b={folders}/folder/")
    source = pickle.loads(pickle.dumps(open_sources(specs)))
    names = ["sa1b-1/sa_1", "sa1b-1/sa_2", "labelmap/a.jpg", "sa1b-2/sa_1", "sa1b-2/sa_2", "sa1b-2/sa_3"]
    assert [source.name(index) for index in range(len(source))] == names
    assert [source[index].name for index in (0, 1, 2, 3, 5)] == [names[index] for index in (0, 1, 2, 3, 5)]
    with pytest.raises(BadRecord, match="sa_2"):
        source[4]
    for index in (-1, 6):
        with pytest.raises(IndexError):
            source[index]


def test_records_at_even_distances_are_of_every_source(folders):
    whole = open_sources((f"sa1b={folders}/sa_000000.tar", f"sa1b={folders}/folder/"))
    source = pickle.loads(pickle.dumps(Spread(whole, 3)))
    names = ["sa1b-1/sa_1", "sa1b-1/sa_2", "sa1b-2/sa_2"]
    assert [source.name(index) for index in range(len(source))] == names
    assert [source[index].name for index in (0, 1)] == names[:2]
    assert source.flawed == whole.flawed
    assert len(Spread(whole, 9)) == 5
    for index in (-1, 3):
        with pytest.raises(IndexError):
            source.name(index)


def test_class_maps_are_cut_into_regions(folders):
    for form, count in [("labelmap", 1), ("classmap", 2)]:
        source = open_sources((f"{form}={folders}/photos,{folders}/maps",))
        assert len(source[0].masks) == count


def test_the_home_folder_may_be_abbreviated(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders))
    assert len(open_sources(("sa1b=~/sa_000000.tar",))) == 2
    assert len(open_sources((f"sa1b=file://{folders}/sa_000000.tar",))) == 2


def test_a_comma_within_a_path_is_written_twice(tmp_path, folders):
    (folders / "photos").rename(tmp_path / "a,b, c")
    (folders / "maps").rename(tmp_path / "maps,")
    assert len(open_sources((f"labelmap={tmp_path}/a,,b,, c,{tmp_path}/maps,,",))[0].masks) == 1
    assert parse_spec("coco=a,,b/img,ann.json", FORMATS) == ("coco", ["a,b/img", "ann.json"])
    assert parse_spec("sa1b=,,,,x", FORMATS) == ("sa1b", [",,x"])
    with pytest.raises(ValueError, match=r"has 3 paths .* written twice: labelmap=a,,b for labelmap=a,b"):
        open_sources((f"labelmap={tmp_path}/a,b,{tmp_path}/maps",))


def test_what_was_left_out_at_opening_is_counted_over_all_sources(folders, write):
    write(folders / "photos", {"b.jpg": b""})
    write(folders / "maps", {"c.png": b""})
    write(folders / "folder", {"sa_9.json": b""})
    source = open_sources((f"labelmap={folders}/photos,{folders}/maps", f"sa1b={folders}/folder"))
    assert [flaw.what for flaw in source.flawed] == ["labelmap/c.png (masks)", "sa1b/sa_9"]
    assert source.left_out.photos == {Reason.NO_ANNOTATIONS: 1}
    assert source.left_out.files == {Reason.NO_PHOTO: 2}
    expected = "left out: 1 photo (1 without an annotation file), 2 files (2 without a photo)"
    assert str(source.left_out) == expected


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ((), "no data was given"),
        (("/data/sa1b",), "FORMAT=PATH"),
        (("voc=/data",), r"one of sa1b=FOLDER_OR_TAR, coco=IMAGES,ANNOTATIONS\.json"),
        (("coco=/data",), r"has 1 paths where coco=IMAGES,ANNOTATIONS\.json is wanted"),
        (("labelme=/data,/more",), "has 2 paths where labelme=FOLDER is wanted"),
        (("pairs=",), r"pairs=IMAGES\[,MASKS\]"),
        (("sa1b=/nowhere/at/all",), "sa1b=/nowhere/at/all: there is no folder"),
        (("sa1b=gs://bucket/folder",), "pip install gcsfs"),
        (("sa1b=s3://bucket/folder",), "pip install s3fs"),
        (("sa1b=quux://bucket/folder",), "no known kind of path"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(specs, expected, monkeypatch):
    import sys

    for package in ("gcsfs", "s3fs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=expected):
        open_sources(specs)


def test_the_configuration_names_every_format():
    from samjax.train.config import DataConfig

    assert all(f"{form}=" in DataConfig.__doc__ or f"{form}:" in DataConfig.__doc__ for form in FORMATS)
