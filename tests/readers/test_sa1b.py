"""SA-1B's tars and folders."""

import json
import os
import pickle
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from example_annotations import decoded, jpeg, sa1b_json, tar_of
from pycocotools import mask as coco

from samjax import read_image
from samjax.readers import files, tar_index
from samjax.readers.record import BadRecord
from samjax.readers.sa1b import Sa1b


def names(source) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def reasons(source) -> dict[str, str]:
    """Of all records that cannot be read."""
    found = {}
    for index in range(len(source)):
        try:
            source[index]
        except BadRecord as error:
            found[source.name(index)] = str(error)
    return found


def test_a_record_is_the_photo_with_all_masks_of_its_json(tmp_path, sa1b_files, masks):
    members = sa1b_files([7, 3])
    source = Sa1b(str(tar_of(tmp_path / "sa_000000.tar", members)))
    assert names(source) == ["sa_7", "sa_3"]
    for index, number in enumerate([7, 3]):
        record = source[index]
        assert record.name == f"sa_{number}"
        (tmp_path / "photo.jpg").write_bytes(members[f"sa_{number}.jpg"])
        np.testing.assert_array_equal(record.rgb, read_image(tmp_path / "photo.jpg"))
        np.testing.assert_array_equal(decoded(record), masks)
        assert not record.problems


def test_tars_folders_and_nested_ones_are_the_same_records(tmp_path, sa1b_files, write):
    write(tmp_path / "flat", sa1b_files(range(4)))
    write(tmp_path / "nested", sa1b_files([0, 1], "sa_000000/") | sa1b_files([2, 3], "sa_000001/"))
    (tmp_path / "tars" / "more").mkdir(parents=True)
    tar_of(tmp_path / "tars" / "sa_000000.tar", sa1b_files([0, 1], "./"))
    tar_of(tmp_path / "tars" / "more" / "sa_000001.tar", sa1b_files([2, 3], "inner/"))
    sources = [Sa1b(str(tmp_path / layout)) for layout in ("flat", "nested", "tars")]
    for source in sources:
        assert sorted(names(source)) == [f"sa_{number}" for number in range(4)]
    for name in names(sources[0]):
        first, *others = (source[names(source).index(name)] for source in sources)
        for other in others:
            np.testing.assert_array_equal(first.rgb, other.rgb)
            assert first.masks == other.masks


def test_real_tars_hold_what_tarfile_and_pycocotools_find(test_data):
    folder = test_data / "sa_mini" / "val"
    source = Sa1b(str(folder))
    with tarfile.open(folder / "sa_000001.tar") as archive:
        texts = {m.name.removesuffix(".json"): archive.extractfile(m).read() for m in archive if m.name[-4:] == "json"}
        with tarfile.open(folder / "sa_000000.tar") as other:
            assert len(source) == len(texts) + len(other.getnames()) // 2
    for name in sorted(texts)[::8]:
        record = source[names(source).index(name)]
        content = json.loads(texts[name])
        assert record.rgb.shape[:2] == (content["image"]["height"], content["image"]["width"])
        assert coco.area(list(record.masks)).tolist() == [a["area"] for a in content["annotations"]]


def test_sources_work_in_other_threads_and_processes(tmp_path, sa1b_files):
    source = Sa1b(str(tar_of(tmp_path / "sa_000000.tar", sa1b_files(range(30)))))
    copy = pickle.loads(pickle.dumps(source))
    alone = [copy[index].rgb for index in range(30)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda index: source[index % 30].rgb, range(120)))
    for index, rgb in enumerate(together):
        np.testing.assert_array_equal(rgb, alone[index % 30])
    assert len(pickle.dumps(source)) < len(pickle.dumps(Sa1b)) + 30 * 100 + 2000


def test_an_index_is_made_once_and_again_when_the_tar_changes(tmp_path, sa1b_files, monkeypatch, cache):
    path = tar_of(tmp_path / "sa_000000.tar", sa1b_files([1, 2]))
    scans = []
    scan = tar_index._scan
    monkeypatch.setattr(tar_index, "_scan", lambda *arguments: scans.append(arguments) or scan(*arguments))
    first, second = Sa1b(str(path)), Sa1b(str(path))
    assert len(scans) == 1
    assert first[1].masks == second[1].masks
    tar_of(path, sa1b_files([5, 6]))
    os.utime(path, ns=(1, 1))
    assert names(Sa1b(str(path))) == ["sa_5", "sa_6"]
    for kept in (cache / "tars").iterdir():
        kept.write_bytes(b"half an ind")
    assert names(Sa1b(str(path))) == ["sa_5", "sa_6"]
    assert len(scans) == 3


def test_an_unwritable_cache_costs_time_only(tmp_path, sa1b_files, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "file"))
    source = Sa1b(str(tar_of(tmp_path / "sa_000000.tar", sa1b_files([1]))))
    assert names(source) == ["sa_1"]


def test_of_a_truncated_tar_the_whole_pairs_are_used(tmp_path, sa1b_files):
    path = tar_of(tmp_path / "sa_000000.tar", sa1b_files(range(6)))
    with tarfile.open(path) as archive:
        last = archive.getmember("sa_4.jpg")
    data = path.read_bytes()
    path.write_bytes(data[: last.offset_data + 100])
    source = Sa1b(str(path))
    assert names(source)[:4] == [f"sa_{number}" for number in range(4)]
    assert [source[index].name for index in range(4)] == names(source)[:4]
    found = reasons(source)
    assert "JSON" in found["sa_000000.tar/sa_4"]
    assert "ends after" in found["sa_000000.tar"]
    # cut within the JSON: the pair is known and its content is not there
    with tarfile.open(tar_of(path, sa1b_files(range(6)))) as archive:
        last = archive.getmember("sa_5.json")
    path.write_bytes(data[: last.offset_data + 100])
    assert "ends at byte" in reasons(Sa1b(str(path)))["sa_5"]


def test_of_a_damaged_tar_what_lies_behind_the_damage_is_used(tmp_path, sa1b_files):
    path = tar_of(tmp_path / "sa_000000.tar", sa1b_files(range(6)))
    with tarfile.open(path) as archive:
        hurt = archive.getmember("sa_2.jpg")
    data = bytearray(path.read_bytes())
    data[hurt.offset : hurt.offset + 300] = b"\xa5" * 300
    path.write_bytes(data)
    source = Sa1b(str(path))
    found = reasons(source)
    assert [name for name in names(source) if name not in found] == [f"sa_{number}" for number in (0, 1, 3, 4, 5)]
    assert f"bytes {hurt.offset} to" in found["sa_000000.tar"]
    assert "without its photo" in found["sa_000000.tar/sa_2"]


def test_a_tar_that_is_none_is_counted_and_the_others_are_used(tmp_path, sa1b_files):
    tar_of(tmp_path / "sa_000000.tar", sa1b_files([1]))
    (tmp_path / "sa_000001.tar").write_bytes(b"<html>not found</html>" * 100)
    (tmp_path / "sa_000002.tar").write_bytes(b"")
    source = Sa1b(str(tmp_path))
    assert source[0].name == "sa_1"
    assert reasons(source).keys() == {"sa_000001.tar", "sa_000002.tar"}


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_tars_are_named_as_such(tmp_path, kind):
    path = tmp_path / f"sa_000000.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    with pytest.raises(ValueError, match="compressed"):
        Sa1b(str(path))


def test_duplicates_are_left_out_and_equal_names_are_told_apart(tmp_path, sa1b_files, write, photo, masks):
    members = sa1b_files([1, 2])
    write(tmp_path, {f"a/{name}": data for name, data in members.items()})
    write(tmp_path, {"b/sa_1.jpg": members["sa_1.jpg"], "b/sa_1.json": members["sa_1.json"]})
    write(tmp_path, {"c/sa_2.jpg": jpeg(photo[:20]), "c/sa_2.json": json.dumps(sa1b_json(2, [masks[0][:20]])).encode()})
    source = Sa1b(str(tmp_path))
    assert names(source) == ["sa_1", "a/sa_2", "c/sa_2", "b/sa_1"]
    assert reasons(source) == {"b/sa_1": "a duplicate of a/sa_1"}
    assert source[2].rgb.shape == (20, 60, 3)


def test_members_of_one_name_are_counted(tmp_path, sa1b_files):
    path = tar_of(tmp_path / "sa_000000.tar", sa1b_files([1, 2]))
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("sa_2.json"))
    source = Sa1b(str(path))
    assert len(source[1].masks) == 4
    assert reasons(source) == {"sa_000000.tar/sa_2 (again)": "there are two JSON files of this name"}


def test_photos_and_annotations_without_each_other_are_counted(tmp_path, sa1b_files, write):
    members = sa1b_files([1, 2, 3])
    del members["sa_2.json"], members["sa_3.jpg"]
    found = reasons(Sa1b(str(write(tmp_path, members))))
    assert found.keys() == {"sa_2", "sa_3"}
    assert "without its JSON" in found["sa_2"]
    assert "without its photo" in found["sa_3"]


BROKEN = {
    "cut photo": ("jpg", lambda data: data[:-40], "truncated"),
    "no photo": ("jpg", lambda data: b"GIF89a nothing", "cannot be read as an image"),
    "cut JSON": ("json", lambda data: data[:200], "JSON cannot be read"),
    "nested JSON": ("json", lambda data: b"[" * 200_000, "JSON cannot be read"),
    "other JSON": ("json", lambda data: b"[1, 2]", "no list of annotations"),
    "numbers": ("json", lambda data: b'{"annotations": [1, null, "x"]}', "it is no object"),
    "other size": ("json", lambda data: data.replace(b'"size": [40, 60]', b'"size": [60, 40]'), "the photo"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_bad_record_is_said(tmp_path, sa1b_files, case):
    ending, harm, expected = BROKEN[case]
    members = sa1b_files([1, 2])
    members[f"sa_1.{ending}"] = harm(members[f"sa_1.{ending}"])
    source = Sa1b(str(tar_of(tmp_path / "sa_000000.tar", members)))
    with pytest.raises(BadRecord, match=expected):
        source[0]
    assert source[1].masks


def test_bad_annotations_are_left_out_and_named(tmp_path, sa1b_files, masks):
    content = json.loads(sa1b_files([1])["sa_1.json"])
    good = content["annotations"][0]
    rle = good["segmentation"]
    content["annotations"] += [
        {**good, "id": 2003, "segmentation": {**rle, "counts": rle["counts"][:-1]}},
        {**good, "id": 2004, "segmentation": {**rle, "counts": rle["counts"] + "\u00e4"}},
        {
            **good,
            "id": 2005,
            "segmentation": {**rle, "counts": "P[2"},
        },
        {**good, "id": 1000},
        {**good, "id": 2007, "segmentation": None},
        {**good, "id": 2008, "iscrowd": "perhaps"},
    ]
    members = sa1b_files([1]) | {"sa_1.json": json.dumps(content).encode()}
    record = Sa1b(str(tar_of(tmp_path / "sa_000000.tar", members)))[0]
    np.testing.assert_array_equal(decoded(record), masks)
    expected = {
        2003: "",
        2004: "no run-length",
        2005: "empty",
        1000: "twice",
        2007: "neither",
        2008: "iscrowd",
    }
    assert len(record.problems) == len(expected)
    for number, reason in expected.items():
        (problem,) = [problem for problem in record.problems if re.match(rf"annotation {number}\b", problem.what)]
        assert reason in problem.detail


def test_photos_without_annotations_have_no_objects_and_crowds_are_counted(tmp_path, sa1b_files):
    members = sa1b_files([1, 2])
    members["sa_1.json"] = b'{"annotations": []}'
    content = json.loads(members["sa_2.json"])
    for annotation in content["annotations"]:
        annotation["iscrowd"] = True
    members["sa_2.json"] = json.dumps(content).encode()
    nothing, crowds = (source := Sa1b(str(tar_of(tmp_path / "sa_000000.tar", members))))[0], source[1]
    assert nothing.masks == crowds.masks == nothing.problems == crowds.problems == nothing.crowds == ()
    assert crowds.void is not None
    assert [problem.what for problem in crowds.crowds] == [f"annotation {2000 + 7 * place}" for place in range(4)]


def test_photos_are_read_upright(tmp_path, photo, masks):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    turned = [np.rot90(mask, -1) for mask in masks]
    members = {"sa_1.jpg": jpeg(photo, exif=exif), "sa_1.json": json.dumps(sa1b_json(1, turned)).encode()}
    record = Sa1b(str(tar_of(tmp_path / "sa_000000.tar", members)))[0]
    assert record.rgb.shape == (60, 40, 3)
    assert np.abs(record.rgb.astype(int) - np.rot90(photo, -1)).mean() < 3


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        Sa1b(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no records"):
        Sa1b(str(tmp_path))
    with pytest.raises(ValueError, match=r"(?s)no records.*sa_000000.tar"):
        Sa1b(str(tmp_path / "sa_000000.tar"))


def test_remote_tars_are_read_in_pieces(tmp_path, serve, sa1b_files, photo):
    big = {f"film_{number}.bin": bytes(300_000) for number in range(20)}
    tar_of(tmp_path / "sa_000000.tar", {**sa1b_files([1]), **big, **sa1b_files([2])})
    server = serve(tmp_path)
    source = Sa1b(f"{server.url}/sa_000000.tar")
    assert server.sent < 23 * (1 << 15) + 100_000  # of 6 MB
    assert names(source) == ["sa_1", "sa_2"]
    server.sent = 0
    local = Sa1b(str(tmp_path / "sa_000000.tar"))
    for index in range(2):
        np.testing.assert_array_equal(source[index].rgb, local[index].rgb)
        assert source[index].masks == local[index].masks
    assert server.sent < 40_000
    server.requests.clear()
    assert names(Sa1b(f"{server.url}/sa_000000.tar")) == names(local)
    assert not server.requests  # but HEAD: the index is kept by size and date


def test_a_server_that_is_down_is_no_bad_record(tmp_path, serve, sa1b_files, monkeypatch):
    monkeypatch.setattr(files, "_FIRST_PAUSE", 0.001)
    tar_of(tmp_path / "sa_000000.tar", sa1b_files([1]))
    server = serve(tmp_path)
    source = Sa1b(f"{server.url}/sa_000000.tar")
    server.failures = 4
    assert source[0].masks
    server.failures = 100
    with pytest.raises(files.Unreachable):
        source[0]


def test_remote_folders_of_tars_are_listed(tmp_path, serve, sa1b_files):
    (tmp_path / "more").mkdir()
    tar_of(tmp_path / "sa_000000.tar", sa1b_files([1]))
    tar_of(tmp_path / "more" / "sa_000001.tar", sa1b_files([2]))
    server = serve(tmp_path)
    source = Sa1b(server.url)
    assert sorted(names(source)) == ["sa_1", "sa_2"]
    assert source[0].masks == source[1].masks


def test_servers_without_ranges_are_named(tmp_path, serve, sa1b_files):
    tar_of(tmp_path / "sa_000000.tar", sa1b_files([1]))
    server = serve(tmp_path, ranges=False)
    with pytest.raises(ValueError, match=r"parts of a file|ignores requests"):
        Sa1b(f"{server.url}/sa_000000.tar")
