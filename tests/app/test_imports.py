"""Existing annotations become the objects that work begins with."""

import base64
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from example_annotations import png
from example_work import SIZE, Library, clicked, rgb_of, square, works_in
from PIL import Image

from samjax.app.classes import checked_classes
from samjax.app.imports import Annotations, Importer, notes_of, objects_of
from samjax.app.objects import work_json
from samjax.app.work import Original
from samjax.ops.rle import decode_rle
from samjax.readers.record import Record
from samjax.readers.sources import FORMATS, open_sources
from samjax.workfile import WorkObject, WorkPhoto, WorkState, read_work

CAT, DOG = square(12, 10), square(40, 25, 6)


def coco(folder, name: str = "a.png", size=SIZE) -> str:
    """COCO's file about a cat and a dog in one photo of `folder`."""
    annotations = [
        {"id": 5, "image_id": 1, "category_id": 17, "segmentation": CAT},
        {"id": 6, "image_id": 1, "category_id": 3, "segmentation": DOG},
        {"id": 7, "image_id": 1, "category_id": 99, "segmentation": DOG},
    ]
    content = {
        "images": [{"id": 1, "file_name": name, "height": size[0], "width": size[1]}],
        "annotations": annotations,
        "categories": [{"id": 17, "name": "cat"}, {"id": 3, "name": "dog"}, "nonsense"],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return f"coco={folder},{folder / 'coco.json'}"


def sa1b(folder) -> str:
    annotations = [{"id": 1, "segmentation": CAT}, {"id": 2, "segmentation": DOG}]
    (folder / "a.json").write_text(json.dumps({"annotations": annotations}))
    return f"sa1b={folder}"


def labels(folder) -> np.ndarray:
    made = decode_rle(CAT) * 3 + decode_rle(DOG) * 8
    (folder / "maps").mkdir()
    (folder / "maps" / "a.png").write_bytes(png(made.astype(np.uint8)))
    return made


def labelmap(folder) -> str:
    labels(folder)
    return f"labelmap={folder},{folder / 'maps'}"


def classmap(folder) -> str:
    return labelmap(folder).replace("labelmap", "classmap")


def labelme(folder) -> str:
    def shape(label, rle):
        mask = decode_rle(rle)
        rows, columns = np.nonzero(mask)
        part = png((mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] * 255).astype(np.uint8))
        corners = [[int(columns.min()), int(rows.min())], [int(columns.max()), int(rows.max())]]
        return {"label": label, "points": corners, "shape_type": "mask", "mask": base64.b64encode(part).decode()}

    shapes = [shape("cat", CAT), shape("dog", DOG)]
    (folder / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.png"}))
    return f"labelme={folder}"


def pairs(folder) -> str:
    (folder / "masks" / "a").mkdir(parents=True)
    for name, rle in (("cat", CAT), ("dog", DOG)):
        (folder / "masks" / "a" / f"{name}.png").write_bytes(png(decode_rle(rle).astype(np.uint8) * 255))
    return f"pairs={folder},{folder / 'masks'}"


def work(folder) -> str:
    photo = Library(folder, ["a.png"]).facts("a")
    objects = (WorkObject("o1", CAT, "prompts", class_="cat"), WorkObject("o2", DOG, "import", class_="dog"))
    state = WorkState(WorkPhoto("a.png", photo.hash, *SIZE, "../a.png"), objects=objects)
    (folder / "other").mkdir()
    (folder / "other" / "a.png.samjax.json").write_text(state.text())
    return f"work={folder / 'other'}"


NAMED = ("cat", "dog")
EXPECTED = {  # the classes that each format holds
    coco: (*NAMED, "99"), sa1b: (None, None), labelmap: (None, None), classmap: ("3", "8"), labelme: NAMED,
    pairs: (None, None), work: NAMED,
}  # fmt: skip


def test_every_source_has_its_case():
    assert {make.__name__ for make in EXPECTED} == set(FORMATS)


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_masks_and_classes_of_every_source_become_objects(tmp_path, make):
    library = Library(tmp_path, ["a.png"])
    annotations = Annotations([make(tmp_path)])
    works = works_in(tmp_path / "work", imported=Importer(library, annotations))
    photo = library.facts("a")
    opened = works.open("a", photo.name, photo.hash, photo.size, photo.path)
    objects = opened.state.objects
    expected = [CAT, DOG, DOG][: len(EXPECTED[make])]
    assert sorted(known.rle["counts"] for known in objects) == sorted(rle["counts"] for rle in expected)
    by_mask = {(known.rle["counts"], known.class_) for known in objects}
    assert by_mask == {(rle["counts"], name) for rle, name in zip(expected, EXPECTED[make], strict=True)}
    assert {known.source for known in objects} == {"import"}
    assert all(not known.steps and known.model is None for known in objects)
    names = {name for name in EXPECTED[make] if name}
    assert {entry["name"] for entry in works.classes.listed} == names
    assert works_in(tmp_path / "work").classes.listed == works.classes.listed
    assert not works.path_of("a.png").exists()  # nothing has been changed yet


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_every_source_knows_the_file_of_a_photo(tmp_path, make):
    Library(tmp_path, ["a.png"])
    assert Path(open_sources([make(tmp_path)])[0].photo or "").resolve() == tmp_path / "a.png"


def test_the_first_change_writes_what_was_imported(tmp_path):
    library = Library(tmp_path, ["a.png"])
    photo = library.facts("a")
    works = works_in(tmp_path / "work", imported=Importer(library, Annotations([coco(tmp_path)])))
    opened = works.open("a", photo.name, photo.hash, photo.size, photo.path)
    opened.change({"o2": {"class": "wolf"}}, 0)
    opened.add([clicked(30, 30)], 1)
    state = read_work(works.path_of("a.png")).state
    assert [(known.id, known.class_) for known in state.objects] == [
        ("o1", "cat"), ("o2", "wolf"), ("o3", "99"), ("o4", None)
    ]  # fmt: skip
    (tmp_path / "coco.json").unlink()  # the annotations are not asked for any more
    again = works_in(tmp_path / "work").open("a", photo.name, photo.hash, photo.size, photo.path)
    assert again.state == state


def test_the_photo_of_a_record_is_kept_without_loss(tmp_path):
    """One from an archive, say, so that the work can be read without it."""
    record = Record("coco/x/1.jpg", rgb_of(7), (CAT,), ids=(4,), categories=(2,))
    library = Library(tmp_path, [], [record])
    photo = library.facts("c")
    works = works_in(tmp_path / "work", imported=Importer(library))
    opened = works.open("c", photo.name, photo.hash, photo.size, None, Original(lambda: None, lambda: record.rgb))
    assert [known.class_ for known in opened.state.objects] == ["2"]
    opened.set_done(True)
    state = read_work(works.path_of(record.name)).state
    assert state.photo.path == "../../pixels/coco/x/1.jpg.png"
    again = open_sources([f"work={tmp_path / 'work'}"])[0]
    assert np.array_equal(again.rgb, record.rgb)
    assert again.masks == record.masks
    (tmp_path / "work" / "pixels" / "coco" / "x" / "1.jpg.png").unlink()
    works = works_in(tmp_path / "work")
    works.open("c", photo.name, photo.hash, photo.size, None, Original(lambda: None, lambda: record.rgb))
    assert np.array_equal(open_sources([f"work={tmp_path / 'work'}"])[0].rgb, record.rgb)  # it was written again


def test_a_record_is_not_taken_for_a_photo_of_a_similar_name(tmp_path):
    """dog.jpg beside dog.png, or one of the name in another folder, unless its pixels are the same."""
    library = Library(tmp_path, ["a.png", "x/a.png"])
    said = []
    annotations = Annotations([coco(tmp_path)], say=said.append)
    assert len(annotations.of(library.facts("a")).objects) == 3
    other = annotations.of(library.facts("x"))
    assert other.objects == ()
    assert "coco/a.png has a similar name, and other pixels" in said[0]
    assert other.notes == (f"{said[0]}.",)
    (tmp_path / "z").mkdir()
    Image.fromarray(library.facts("a").rgb).save(tmp_path / "z" / "a.png")
    copied = Library(tmp_path, ["z.png"]).facts("z")
    same = type(copied)("z", "z/a.png", tmp_path / "z" / "a.png", SIZE, library.facts("a").hash, copied.rgb)
    assert len(annotations.of(same).objects) == 3


def test_annotations_that_do_not_fit_are_an_error(tmp_path):
    library = Library(tmp_path, ["a.png"])
    photo = library.facts("a")
    annotations = Annotations([coco(tmp_path)])
    turned = type(photo)("a", "a.png", photo.path, (60, 40), photo.hash, photo.rgb)
    with pytest.raises(ValueError, match=r"annotations of a\.png are for 60 x 40 pixels, the photo has 40 x 60"):
        annotations.of(turned)
    twice = Annotations([coco(tmp_path), labelmap(tmp_path)])
    with pytest.raises(ValueError, match=r"may be coco/a\.png, labelmap/a\.png"):
        twice.of(photo)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"annotations coco/a\.png cannot be used"):
        annotations.of(photo)


def crowded(folder) -> str:
    """COCO's file with two crowds, an annotation without area and an empty one beside a cat."""
    spec = coco(folder)
    content = json.loads((folder / "coco.json").read_text())
    content["annotations"][1:] = [
        {"id": 6, "image_id": 1, "category_id": 3, "segmentation": DOG, "iscrowd": 1},
        {"id": 7, "image_id": 1, "category_id": 3, "segmentation": DOG, "iscrowd": 1},
        {"id": 8, "image_id": 1, "category_id": 3, "segmentation": [[1, 1, 2]]},
        {"id": 9, "image_id": 1, "category_id": 3, "segmentation": {"size": list(SIZE), "counts": [2400]}},
    ]
    (folder / "coco.json").write_text(json.dumps(content))
    return spec


def test_annotations_that_are_left_out_are_told_when_the_photo_is_opened(tmp_path):
    library = Library(tmp_path, ["a.png"])
    works = works_in(tmp_path / "work", imported=Importer(library, Annotations([crowded(tmp_path)])))
    photo = library.facts("a")
    opened = works.open("a", photo.name, photo.hash, photo.size, photo.path)
    assert len(opened.state.objects) == 1
    (note,) = work_json(opened)["notes"]
    assert note.startswith("4 annotations of this photo are not imported (annotation 8: ")
    assert "annotation 9: its mask is empty" in note
    assert note.endswith("; 2 with iscrowd 1: regions of many objects).")


def test_void_pixels_are_told(tmp_path):
    """255 in a label map of 8 bits."""
    Library(tmp_path, ["a.png"])
    spec = labelmap(tmp_path)
    made = decode_rle(CAT) * 3
    made[0, 0] = 255
    (tmp_path / "maps" / "a.png").write_bytes(png(made.astype(np.uint8)))
    record = open_sources([spec])[0]
    assert notes_of(record) == ["Void pixels, of which the annotations say nothing, are not imported."]
    assert notes_of(dataclasses.replace(record, void=None)) == []


def test_a_source_brings_all_of_its_categories_in_the_order_of_their_numbers(tmp_path):
    """Whichever photo is opened first, and once: what a person removes does not come back."""
    library = Library(tmp_path, ["a.png"])
    imported = Importer(library, Annotations([coco(tmp_path)]), classes=["horse", " ", "dog"])
    works = works_in(tmp_path / "work", imported=imported)
    assert [entry["name"] for entry in works.classes.listed] == ["horse", "dog", "cat"]
    assert [entry["name"] for entry in works_in(tmp_path / "work").classes.listed] == ["horse", "dog", "cat"]
    works.classes.replace([{"name": "cat", "colour": "#000000"}])
    assert [entry["name"] for entry in works_in(tmp_path / "work", imported=imported).classes.listed] == ["cat"]


def test_odd_names_of_categories_become_names_that_classes_may_have(tmp_path):
    record = Record("a", rgb_of(0), (CAT, DOG, DOG, DOG), classes=("two\nlines", " ", "n" * 300, "x"))
    names = [new.class_ for new in objects_of(record)]
    assert names == ["two\\nlines", None, "n" * 200, "x"]
    assert checked_classes([{"name": name, "colour": "#000000"} for name in names if name])


def test_a_record_without_names_has_objects_without_classes():
    objects = objects_of(Record("a", rgb_of(0), (CAT, DOG)))
    assert [(new.rle, new.class_) for new in objects] == [(CAT, None), (DOG, None)]
