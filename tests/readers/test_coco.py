"""COCO and LVIS; pycocotools.coco.COCO is the oracle."""

import contextlib
import io
import json
import pickle

import numpy as np
import pytest
from example_annotations import decoded, jpeg, png
from pycocotools import mask as coco
from pycocotools.coco import COCO

from samjax.readers.coco import Coco
from samjax.readers.left_out import Reason
from samjax.readers.record import BadRecord


@pytest.fixture
def content(masks) -> dict:
    """Objects in all forms that COCO has, ids and categories with gaps, a crowd, photos without objects."""
    rles = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    runs = [int(run) for run in np.diff(np.flatnonzero(np.diff(masks[1].ravel("F"), prepend=2, append=2)))]
    annotations = [
        {"image_id": 139, "segmentation": [[3.5, 4.0, 30.25, 6.0, 20.0, 33.0], [40, 1, 55, 1, 55, 20, 40, 20]]},
        {"image_id": 139, "segmentation": {"size": [40, 60], "counts": rles[0]["counts"].decode()}},
        {"image_id": 285, "segmentation": {"size": [40, 60], "counts": runs if not masks[1][0, 0] else [0, *runs]}},
        {"image_id": 139, "segmentation": {"size": [40, 60], "counts": [0, 2400]}, "iscrowd": 1},
        {"image_id": 632, "segmentation": {"size": [40, 60], "counts": [0, 2400]}, "iscrowd": 1},
    ]
    for number, annotation in enumerate(annotations):
        rle = annotation["segmentation"]
        if isinstance(rle, list):
            rle = coco.merge(coco.frPyObjects(rle, 40, 60))
        elif isinstance(rle["counts"], list):
            rle = coco.frPyObjects(rle, 40, 60)
        box = coco.toBbox(rle).tolist()
        annotation |= {"id": 900 + 13 * number, "category_id": 1 + 40 * number, "bbox": box, "area": 5.0}
        annotation.setdefault("iscrowd", 0)
    images = [
        {"id": number, "file_name": name, "height": 40, "width": 60}
        for number, name in [(139, "a.png"), (285, "sub/b.png"), (632, "crowd.png"), (7, "nothing.png")]
    ]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": [{"id": 1}]}


@pytest.fixture
def opened(tmp_path, photo, write):
    """Opens annotations with photos a.png, sub/b.png, crowd.png and nothing.png."""

    def opened(content: dict) -> Coco:
        names = ("a.png", "sub/b.png", "crowd.png", "nothing.png")
        write(tmp_path / "images", {name: png(photo) for name in names})
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        return Coco(str(tmp_path / "images"), str(tmp_path / "annotations.json"))

    return opened


def oracle(path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def test_objects_are_those_of_pycocotools_without_crowds(tmp_path, opened, content, photo):
    source = pickle.loads(pickle.dumps(opened(content)))
    assert [source.name(index) for index in range(len(source))] == ["a.png", "sub/b.png"]
    other = oracle(tmp_path / "annotations.json")
    for index, image in enumerate([139, 285]):
        record = source[index]
        np.testing.assert_array_equal(record.rgb, photo)
        expected = [other.annToMask(found) for found in other.loadAnns(other.getAnnIds([image], iscrowd=False))]
        np.testing.assert_array_equal(decoded(record), expected)
        assert not record.problems


def test_objects_keep_their_ids_and_categories(opened, content):
    record = opened(content)[0]
    assert (record.ids, record.categories, record.void) == ((900, 913), (1, 41), None)


def test_objects_have_the_names_of_their_categories(opened, content):
    """As far as there are any: LVIS and tools of all kinds write other things there."""
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": "81", "name": "dog"}, {"id": 42}, "none", {"name": "x"}]
    assert [record.classes for record in map(opened(content).__getitem__, range(2))] == [("cat", None), ("dog",)]
    for nothing in ([], None, {"1": "cat"}):
        assert opened({**content, "categories": nothing})[0].classes == ()


def test_for_evaluation_photos_without_objects_count_and_crowds_are_void(tmp_path, opened, content):
    content["annotations"][3]["segmentation"]["counts"] = [100, 50, 2250]
    opened(content)
    source = Coco(str(tmp_path / "images"), str(tmp_path / "annotations.json"), whole=True)
    records = [source[index] for index in range(len(source))]
    assert [record.name for record in records] == ["a.png", "sub/b.png", "crowd.png", "nothing.png"]
    assert [record.ids for record in records] == [(900, 913), (926,), (), ()]
    assert [0 if record.void is None else int(coco.area(record.void)) for record in records] == [50, 0, 2400, 0]
    other = oracle(tmp_path / "annotations.json")
    np.testing.assert_array_equal(coco.decode(records[0].void), other.annToMask(other.loadAnns([939])[0]))


def test_nuclei_are_those_of_pycocotools(test_data):
    folder = test_data / "dsb2018"
    source, other = Coco(str(folder / "images" / "val"), str(folder / "val.json")), oracle(folder / "val.json")
    images = {image["file_name"]: image["id"] for image in other.dataset["images"]}
    assert len(source) == len(images) == 60
    assert len(pickle.dumps(source)) < (folder / "val.json").stat().st_size / 3
    for index in range(0, 60, 7):
        record = source[index]
        expected = other.loadAnns(other.getAnnIds([images[record.name]]))
        assert len(record.masks) == len(expected)
        np.testing.assert_array_equal(decoded(record), [other.annToMask(found) for found in expected])


def test_photos_of_lvis_are_found_by_their_url(opened, content):
    for image in content["images"]:
        name = image.pop("file_name")
        image["coco_url"] = f"http://images.cocodataset.org/sub/{name.rpartition('/')[2]}"
    source = opened(content)
    assert [source.name(index) for index in range(2)] == ["sub/a.png", "sub/b.png"]
    assert len(source[0].masks) == 2  # lies in the folder itself
    assert len(source[1].masks) == 1  # in its sub-folder


def test_images_that_come_twice_and_annotations_of_none_are_counted(opened, content):
    content["images"] += [
        {**content["images"][0], "file_name": "crowd.png"},
        {**content["images"][1], "id": 286},
        {"id": 5},
    ]
    content["annotations"] += [{**content["annotations"][0], "image_id": 4242}] * 2
    source = opened(content)
    assert source.left_out.annotations[Reason.NO_PHOTO] == 2
    assert [stray.what for stray in source.strays] == ["image 4242"]
    reasons = {}
    for index in range(2, len(source)):
        with pytest.raises(BadRecord) as caught:
            source[index]
        reasons[source.name(index)] = str(caught.value)
    assert reasons == {
        "crowd.png (number 4)": "its id 139 comes twice among the images",
        "sub/b.png (number 5)": "its file name comes twice among the images",
        "image number 6": "it has neither file_name nor coco_url",
        "image 4242": "2 annotations name it, and there is none",
    }
    assert len(source[0].masks) == 2


def test_ids_of_text_that_look_like_one_number_are_told_apart(opened, content):
    """Zeros in front, and hashes that look like powers of ten."""
    ids = ["007", "7", "1e3", "1000"]
    boxes = [[x, 4, x + 8, 4, x + 8, 12, x, 12] for x in (2, 14, 26, 38)]
    names = [image["file_name"] for image in content["images"]][:4]
    images = [{"id": id, "file_name": name} for id, name in zip(ids, names, strict=True)]
    annotations = [{"image_id": id, "segmentation": [box]} for id, box in zip((*ids[:3], 1000), boxes, strict=True)]
    source = opened({"images": images, "annotations": annotations})
    assert not source.flawed
    found = {source.name(index): [coco.toBbox(mask).tolist() for mask in source[index].masks] for index in range(4)}
    assert found == {name: [[box[0], 4, 8, 8]] for name, box in zip(names, boxes, strict=True)}


def test_bad_annotations_are_left_out_and_named(opened, content):
    good = content["annotations"][0]
    content["annotations"] += [
        {**good, "id": 2, "segmentation": [[1, 2, 3, 4, 500, 6]]},
        {**good, "id": 3, "segmentation": []},
        {**good, "id": 4, "segmentation": {"size": [60, 40], "counts": [0, 2400]}},
        {**good, "id": 900},
    ]
    record = opened(content)[0]
    assert len(record.masks) == 2
    found = {problem.what: problem.reason for problem in record.problems}
    assert found == {
        "annotation 2": Reason.OUTSIDE,
        "annotation 3": Reason.NO_AREA,
        "annotation 4": Reason.SIZE,
        "annotation 900 (number 5)": Reason.REPEAT,
    }


def test_photos_of_another_size_are_bad(tmp_path, opened, content, photo):
    source = opened(content)
    (tmp_path / "images" / "a.png").write_bytes(png(photo[:30]))
    with pytest.raises(BadRecord, match="60 x 40 pixels, the photo has 60 x 30"):
        source[0]
    (tmp_path / "images" / "a.png").write_bytes(jpeg(photo)[:300])
    with pytest.raises(BadRecord, match="cannot be read as an image"):
        source[0]
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(BadRecord, match="No such file"):
        source[0]


def test_wrong_files_and_folders_are_errors_at_once(tmp_path, opened, content, write):
    opened(content)
    annotations = str(tmp_path / "annotations.json")
    with pytest.raises(ValueError, match=r"none of the first photos.*a\.png"):
        Coco(str(tmp_path / "elsewhere"), annotations)
    with pytest.raises(ValueError, match="no annotation file"):
        Coco(str(tmp_path / "images"), str(tmp_path / "nothing.json"))
    for text, expected in [("{", "cannot be read as JSON"), ("[]", "no file of COCO"), ('{"info": 1}', "it has info")]:
        write(tmp_path, {"other.json": text.encode()})
        with pytest.raises(ValueError, match=expected):
            Coco(str(tmp_path / "images"), str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match="no image with annotations"):
        opened({**content, "annotations": []})


def test_everything_may_lie_on_a_server(tmp_path, opened, content, serve):
    local = opened(content)
    url = serve(tmp_path).url
    remote = Coco(f"{url}/images", f"{url}/annotations.json")
    for index in range(2):
        np.testing.assert_array_equal(remote[index].rgb, local[index].rgb)
        assert remote[index].masks == local[index].masks


def test_ids_have_no_part_and_repeats_are_left_out(opened, content):
    """Converters write 0 for every id, or none; what comes twice with its segmentation is one."""
    ring = content["annotations"][0]["segmentation"][1]
    shifted = [[side - 5 * step * (number % 2 == 0) for number, side in enumerate(ring)] for step in range(1, 7)]
    good = {**content["annotations"][0], "bbox": None}
    for given in (0, None, "0", 0.0, True, [1], {}, "", float("nan"), ...):
        several = [{**good, "id": given, "segmentation": [polygon]} for polygon in [*shifted, shifted[0]]]
        if given is ...:
            several = [{name: value for name, value in each.items() if name != "id"} for each in several]
        record = opened({**content, "annotations": several})[0]
        assert len(record.masks) == len(set(record.ids)) == 6
        assert [problem.reason for problem in record.problems] == [Reason.REPEAT]
        first = 0 if given in (0, "0", 0.0) and given is not False else "annotation number 0"
        assert record.ids[0] == first
        assert record.ids == opened({**content, "annotations": several})[0].ids
    other = [{**good, "id": number} for number in (1, 2)]
    assert opened({**content, "annotations": other})[0].ids == (1, 2)  # two annotations of one region


@pytest.mark.parametrize("form", [float, str, lambda number: f"{number}.0"])
def test_whole_numbers_may_be_floats_or_text(opened, content, form):
    expected = opened(content)[0]
    for image in content["images"]:
        image |= {name: form(image[name]) for name in ("id", "height", "width")}
    for annotation in content["annotations"]:
        annotation |= {name: form(annotation[name]) for name in ("id", "image_id", "category_id", "iscrowd")}
        annotation["bbox"] = list(map(str, annotation["bbox"]))
    source = opened(content)
    assert [source.name(index) for index in range(len(source))] == ["a.png", "sub/b.png"]
    record = source[0]
    assert (record.ids, record.categories, record.masks) == (expected.ids, expected.categories, expected.masks)
    assert record.problems == record.noted == ()
    content["images"][0]["height"] = form(41)
    with pytest.raises(BadRecord, match="60 x 41 pixels, the photo has 60 x 40") as caught:
        opened(content)[0]
    assert caught.value.reason == Reason.SIZE


@pytest.mark.parametrize("value", [1, "1", True, "true", 1.0])
def test_where_all_are_crowds_the_error_names_iscrowd_and_says_what_to_do(opened, content, value):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = value
    with pytest.raises(ValueError, match=r"all 5 annotations of .* have iscrowd 1.*set their iscrowd to 0"):
        opened(content)


@pytest.mark.parametrize("value", [0, "0", False, "false", 0.0, None])
def test_crowds_and_photos_without_objects_are_counted(opened, content, value):
    for annotation in content["annotations"][:3]:
        annotation["iscrowd"] = value
    source = opened(content)
    assert [len(source[index].masks) for index in (0, 1)] == [2, 1]
    assert source.left_out.annotations == {Reason.CROWD: 2}
    assert source.left_out.photos == {Reason.NO_OBJECTS: 2}
    assert [source[index].crowds_left_out for index in (0, 1)] == [1, 0]
    content["annotations"][0]["iscrowd"] = "perhaps"
    (problem,) = opened(content)[0].problems
    assert "iscrowd is 'perhaps'" in problem.detail


def test_categories_are_listed_in_the_order_of_their_numbers(opened, content):
    names = {90: "ninety", 7: "seven", 41: "forty-one", 42: "seven"}
    content["categories"] = [{"id": number, "name": name} for number, name in names.items()] + [{"id": 8}]
    assert opened(content).classes == ("seven", "forty-one", "ninety")


BOXES = {
    "corners": [30, 5, 58, 38],
    "NaN": [float("nan")] * 4,
    "five numbers": [3, 4, 20, 20, 1],
    "negative": [3, 4, -20, 20],
    "text": "[3, 4, 20, 20]",
    "object": {"x": 3},
    "a number": 7,
    "huge": [10**400, 0, 1, 1],
}


@pytest.mark.parametrize("case", BOXES)
def test_a_box_that_cannot_be_right_is_noted_and_the_mask_kept(opened, content, case):
    content["annotations"][0]["bbox"] = BOXES[case]
    record = opened(content)[0]
    assert record.ids == (900, 913)
    assert record.problems == ()
    ((what, reason),) = [(noted.what, noted.reason) for noted in record.noted]
    assert (what, reason) == ("annotation 900", Reason.BOX)


def test_a_box_may_be_missing(opened, content):
    content["annotations"][0]["bbox"] = None
    content["annotations"][1]["bbox"] = []
    del content["annotations"][2]["bbox"]
    source = opened(content)
    assert [(len(source[index].masks), source[index].noted) for index in (0, 1)] == [(2, ()), (1, ())]


@pytest.mark.parametrize("names", [("x/b.png", "y/b.png"), ("b.png", "y/b.png")])
def test_a_photo_is_not_taken_for_another_of_its_name_in_another_folder(tmp_path, opened, content, photo, names):
    for image, name in zip(content["images"], names, strict=False):
        image["file_name"] = name
    content["images"], images = content["images"][:2], tmp_path / "images"
    images.mkdir()
    (images / "b.png").write_bytes(png(photo))
    match = r"b\.png may belong to any of (x/)?b\.png, y/b\.png"
    if names[0] == "b.png":
        source = opened(content)
        assert len(source[0].masks) == 2
        with pytest.raises(BadRecord, match=match):
            source[1]
    else:
        with pytest.raises(ValueError, match=match):
            opened(content)
    (images / "y").mkdir()
    (images / "y" / "b.png").write_bytes(png(photo))
    source = opened(content)
    assert len(source[1].masks) == 1
