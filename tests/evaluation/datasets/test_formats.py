"""Data sets by what a command says."""

import json

import numpy as np
import pytest
from example_annotations import decoded, sa1b_json, tar_of
from PIL import Image
from pycocotools import mask as coco

from samjax.evaluation.datasets import FORMATS, Chosen, open_dataset
from samjax.evaluation.datasets.annotated import AnnotatedPhotos
from samjax.evaluation.protocol import Dataset
from samjax.readers.left_out import Reason
from samjax.readers.record import Record
from samjax.readers.sources import FORMATS as SOURCES


def text_rle(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@pytest.fixture
def annotations(tmp_path, picture, photo, disc, bar):
    """Writes COCO's file: an object, a crowd that covers a part of it, a photo without objects."""
    crowd = disc & (np.arange(60) < 20) | bar
    content = {
        "images": [
            {"id": 9, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 25, "file_name": "empty.png", "height": 40, "width": 60},
        ],
        "annotations": [
            {"id": 900, "image_id": 9, "category_id": 44, "iscrowd": 0, "segmentation": text_rle(disc)},
            {"id": 901, "image_id": 9, "category_id": 1, "iscrowd": 1, "segmentation": text_rle(crowd)},
        ],
        "categories": [],
    }
    for name in ("a.png", "empty.png"):
        picture(tmp_path / f"val2017/{name}", photo)

    def write(change=lambda _: None):
        change(content)
        (tmp_path / "instances.json").write_text(json.dumps(content))
        return f"{tmp_path}/val2017,{tmp_path}/instances.json"

    return write


def test_cocos_crowds_are_not_judged_but_within_objects(annotations, disc, bar):
    dataset = open_dataset(f"coco={annotations()}")
    assert isinstance(dataset, Dataset)
    assert [dataset.name(index) for index in range(len(dataset))] == ["a.png", "empty.png"]
    (found,) = dataset[0].objects
    assert (found.id, found.category) == (900, 44)
    np.testing.assert_array_equal(coco.decode(found.mask), disc)
    np.testing.assert_array_equal(coco.decode(found.ignore), bar & ~disc)
    assert dataset[1].objects == ()


def test_a_crowd_within_an_object_ignores_nothing(annotations, disc):
    def shrink(content):
        content["annotations"][1]["segmentation"] = text_rle(disc & (np.arange(60) < 20))

    (found,) = open_dataset(f"coco={annotations(shrink)}")[0].objects
    assert found.ignore is None


def test_photos_of_lvis_lie_where_their_url_says(annotations, disc):
    def as_lvis(content):
        for image in content["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/val2017/{image.pop('file_name')}"

    spec = annotations(as_lvis)
    folder, _, file = spec.partition(",")
    for images in (folder, folder.removesuffix("/val2017")):
        dataset = open_dataset(f"lvis={images},{file}")
        assert dataset.name(0) == "val2017/a.png"
        (found,) = dataset[0].objects
        assert (found.id, found.category) == (900, 44)


def test_sa1b_keeps_the_ids_of_its_annotations(tmp_path, photo, disc, bar):
    members = {"sa_5.json": json.dumps(sa1b_json(5, [disc, bar])).encode()}
    Image.fromarray(photo).save(tmp_path / "photo.png")
    members["sa_5.png"] = (tmp_path / "photo.png").read_bytes()
    tar_of(tmp_path / "sa_000000.tar", members)
    sample = open_dataset(f"sa1b={tmp_path}/sa_000000.tar")[0]
    assert sample.name == "sa_5"
    np.testing.assert_array_equal(sample.rgb, photo)
    assert [found.id for found in sample.objects] == [5000, 5007]
    np.testing.assert_array_equal([coco.decode(found.mask) for found in sample.objects], [disc, bar])


def test_labels_are_objects_and_255_is_void(tmp_path, picture, photo, disc, bar):
    labels = np.where(disc, 7, np.where(bar, 255, 0)).astype(np.uint8)
    picture(tmp_path / "photos/a.png", photo)
    picture(tmp_path / "maps/a.png", labels)
    (found,) = open_dataset(f"labelmap={tmp_path}/photos,{tmp_path}/maps")[0].objects
    assert found.id == 7
    np.testing.assert_array_equal(coco.decode(found.mask), disc)
    np.testing.assert_array_equal(coco.decode(found.ignore), bar)


def test_pairs_are_objects_by_the_names_of_their_files(tmp_path, picture, photo, disc, bar):
    picture(tmp_path / "photos/a.png", photo)
    for name, mask in (("cat", disc), ("dog", bar)):
        picture(tmp_path / f"masks/a/{name}.png", mask)
    sample = open_dataset(f"pairs={tmp_path}/photos,{tmp_path}/masks")[0]
    assert [found.id for found in sample.objects] == ["a/cat.png", "a/dog.png"]


def test_objects_of_sources_without_ids_are_numbered(photo, disc, bar):
    class Bare:
        def __len__(self):
            return 1

        def name(self, index):
            return "bare"

        def __getitem__(self, index):
            return Record("bare", photo, tuple(coco.encode(np.asfortranarray(mask, np.uint8)) for mask in (disc, bar)))

    assert [found.id for found in AnnotatedPhotos(Bare())[0].objects] == [0, 1]


def test_annotations_that_are_left_out_are_named_crowds_too(annotations):
    def spoil(content):
        content["annotations"].append({"id": 902, "image_id": 9, "segmentation": [[1, 2, 3, 4]]})
        content["annotations"][0]["bbox"] = [1, 2, 3]

    sample = open_dataset(f"coco={annotations(spoil)}")[0]
    assert len(sample.objects) == 1
    assert {problem.what: problem.reason for problem in sample.left_out} == {
        "annotation 901": Reason.CROWD,
        "annotation 902": Reason.NO_AREA,
    }
    assert [str(problem) for problem in sample.noted] == [
        "annotation 900: its box is [1, 2, 3], not four numbers; it is not needed, boxes come from masks"
    ]


def test_ids_of_objects_are_unique(annotations):
    def repeat(content):
        crowd = content["annotations"][1]
        content["annotations"][1] = {**crowd, "id": "900.0", "iscrowd": "false"}

    assert [found.id for found in open_dataset(f"coco={annotations(repeat)}")[0].objects] == [900, "900 (2)"]


def test_what_is_known_to_be_left_out_is_counted(tmp_path, picture, photo):
    for name in ("photos/a.png", "photos/b.png", "maps/a_gt.png", "maps/c.png"):
        picture(tmp_path / name, photo[:, :, 0] if name.startswith("maps") else photo)
    found = open_dataset(f"labelmap={tmp_path}/photos,{tmp_path}/maps")
    assert found.left_out.photos == {Reason.NO_ANNOTATIONS: 1}
    assert found.left_out.files == {Reason.NO_PHOTO: 1}
    assert [found.name(index) for index in range(len(found))] == ["a.png"]
    assert [stray.what for stray in found.strays] == ["c.png (masks)"]
    with pytest.raises(IndexError):
        found[1]


def test_maps_without_labels_are_photos_to_judge(tmp_path, picture, photo):
    picture(tmp_path / "photos/a.png", photo)
    picture(tmp_path / "maps/a.png", np.zeros((40, 60), np.uint8))
    sample = open_dataset(f"labelmap={tmp_path}/photos,{tmp_path}/maps")[0]
    assert (sample.objects, sample.left_out) == ((), ())


def test_every_source_of_training_can_be_evaluated():
    assert set(SOURCES) < set(FORMATS)


def test_what_is_wrong_with_a_data_set_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"grabcut=FOLDER, .*sbd=FOLDER\[,SPLIT\], .*lvis=IMAGES,ANNOTATIONS\.json"):
        open_dataset("voc=/data")
    with pytest.raises(ValueError, match=r"has 1 paths where coco=IMAGES,ANNOTATIONS\.json is wanted"):
        open_dataset("coco=/data")
    with pytest.raises(ValueError, match=r"^davis=.*: expected the folders img and gt in .*, found no such folder"):
        open_dataset(f"davis={tmp_path}/nowhere")


def test_real_data_sets_are_those_of_their_readers(test_data):
    folder = test_data / "sa_mini" / "val"
    dataset, source = open_dataset(f"sa1b={folder}"), SOURCES["sa1b"][0](str(folder))
    assert len(dataset) == len(source) > 10
    sample, record = dataset[3], source[3]
    np.testing.assert_array_equal([coco.decode(found.mask) for found in sample.objects], decoded(record))
    five = Chosen(dataset, objects_per_image=5)[3].objects
    assert len(five) == min(5, len(sample.objects))
    nuclei = open_dataset(f"coco={test_data}/dsb2018/images/val,{test_data}/dsb2018/val.json")
    assert len(nuclei) == 60
    assert sum(len(nuclei[index].objects) for index in range(3)) > 3
    assert {found.category for found in nuclei[0].objects} == {1}
