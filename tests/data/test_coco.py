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

from samjax.data.coco import Coco
from samjax.data.record import BadRecord


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
    content["annotations"].append({**content["annotations"][0], "image_id": 4242})
    source = opened(content)
    reasons = {}
    for index in range(2, len(source)):
        with pytest.raises(BadRecord) as caught:
            source[index]
        reasons[source.name(index)] = str(caught.value)
    assert reasons == {
        "crowd.png (number 4)": "its id 139 comes twice among the images",
        "sub/b.png (number 5)": "its file name comes twice among the images",
        "image number 6": "it has neither file_name nor coco_url",
        "image 4242": "1 annotations name it, and there is none",
    }
    assert len(source[0].masks) == 2


def test_bad_annotations_are_left_out_and_named(opened, content):
    good = content["annotations"][0]
    content["annotations"] += [
        {**good, "id": 1, "bbox": [-40, 0, 10, 10]},
        {**good, "id": 2, "segmentation": [[1, 2, 3, 4, 500, 6]]},
        {**good, "id": 3, "segmentation": []},
        {**good, "id": 4, "segmentation": {"size": [60, 40], "counts": [0, 2400]}},
        {**good, "id": 900},
        {**good, "id": 6, "bbox": [1, 2, None, 4]},
    ]
    record = opened(content)[0]
    assert len(record.masks) == 2
    assert [problem.partition(":")[0] for problem in record.problems] == [
        f"annotation {number}" for number in (1, 2, 3, 4, 900, 6)
    ]


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
