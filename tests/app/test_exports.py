"""Work goes out in every format, and comes back the same from those that hold it."""

import dataclasses
import io
import json
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the page's packages are not installed (pip install samjax[app])")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from example_work import Library, Squares, clicked, rgb_of, square, works_in
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from samjax.app import exports
from samjax.app.imports import Annotations, Importer, objects_of
from samjax.app.library import Library as RealLibrary
from samjax.app.library import UnknownPhoto
from samjax.app.objects import Objects
from samjax.app.steps import BadRequest
from samjax.app.work import NewObject
from samjax.ops.rle import decode_rle, rle_iou
from samjax.readers.record import Record
from samjax.readers.sources import open_sources
from samjax.workfile import read_work
from samjax.writers import FORMATS

NAMED = [("cat", square(10, 10)), ("dog", square(40, 25, 8)), ("cat", square(30, 10, 5)), (None, square(12, 32, 4))]


@pytest.fixture
def objects(tmp_path) -> Objects:
    """Two photos with objects of which one is deleted, one done without any, and one not begun."""
    library = Library(tmp_path, ["a.png", "x/b.png", "done.png", "new.png"])
    objects = Objects(works_in(tmp_path / "work"), library, Squares())
    objects.work("a").add([NewObject(rle, "import", class_=name) for name, rle in NAMED])
    objects.work("x").add([clicked(20, 20, class_="dog"), clicked(30, 20, class_="horse")])
    objects.work("x").change({"o2": {"deleted": True}, "o1": {"hidden": True}})
    objects.work("d").set_done(True)
    objects.works.classes.replace([{"name": "dog", "colour": "#00ff00"}, {"name": "cat", "colour": "#0000ff"}])
    return objects


@pytest.fixture
def client(objects) -> TestClient:
    return TestClient(Starlette(routes=objects.routes))


@pytest.fixture
def exported(client, objects):
    def export(format: str, **more):
        answer = client.post("/api/export", json={"format": format, **more})
        assert answer.status_code == 200, answer.text
        return answer.json(), objects.works.folder / "export" / format

    return export


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_writes_the_photos_that_are_finished_and_an_archive_of_them(client, exported, format, tmp_path):
    if format == "geojson":
        answer = client.post("/api/export", json={"format": format})
        assert answer.status_code == 400
        assert "nothing could be exported; a.png" in answer.json()["error"]
        return
    answer, folder = exported(format)
    assert answer["count"] == 3
    assert answer["failed"] == {}
    assert answer["files"] == sorted(answer["files"])
    assert all((folder / name).is_file() for name in answer["files"])
    data = client.get(answer["download"])
    assert data.headers["content-disposition"] == f'attachment; filename="{format}.zip"'
    packed = zipfile.ZipFile(io.BytesIO(data.content))
    assert packed.namelist() == [f"{format}/{name}" for name in answer["files"]]
    assert packed.testzip() is None
    for name in answer["files"]:
        assert packed.read(f"{format}/{name}") == (folder / name).read_bytes()
    assert not list((folder.parent).glob("*partial*"))


def masks_and_classes(objects) -> set[tuple[str, str | None]]:
    return {(known.rle["counts"], known.class_) for known in objects if not getattr(known, "deleted", False)}


def test_coco_brings_masks_and_classes_back(exported, objects, tmp_path):
    _, folder = exported("coco")
    annotations = Annotations([f"coco={tmp_path},{folder / 'annotations.json'}"])
    for photo in ("a", "x"):
        again = annotations.of(objects._library.facts(photo)).objects
        expected = {(counts, name or "object") for counts, name in masks_and_classes(objects.work(photo).state.objects)}
        assert masks_and_classes(again) == expected
    content = json.loads((folder / "annotations.json").read_text())
    assert [entry["name"] for entry in content["categories"]] == ["dog", "cat", "object"]
    assert [image["file_name"] for image in content["images"]] == ["a.png", "done.png", "x/b.png"]
    (scored,) = [entry for entry in content["annotations"] if "predicted_iou" in entry]
    assert (scored["predicted_iou"], scored["point_coords"], scored["category_id"]) == (0.9, [[20.0, 20.0]], 1)


@pytest.fixture
def of_source(tmp_path):
    """Work on photos of COCO's annotations, which are plain files: cat.jpg and x/dog.jpg."""
    for number, name in enumerate(("cat.jpg", "x/dog.jpg")):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb_of(number)).save(tmp_path / "images" / name)
    content = {
        "images": [{"id": 1, "file_name": "cat.jpg"}, {"id": 2, "file_name": "x/dog.jpg"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 7, "segmentation": square(10, 10)} for number in (1, 2)
        ],
        "categories": [{"id": 7, "name": "seven"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    spec = f"coco={tmp_path / 'images'},{tmp_path / 'annotations.json'}"
    library = RealLibrary(spec, tmp_path / "work")
    works = works_in(tmp_path / "work", imported=Importer(library, None, library.records.classes))
    return Objects(works, library, Squares())


@pytest.mark.parametrize("is_changed", [False, True])
@pytest.mark.parametrize("format", ["coco", "yolo", "labelme"])
def test_photos_of_a_source_are_exported_as_the_files_that_they_are(of_source, tmp_path, format, is_changed):
    """Whether or not an object has been changed; no pixels are written again."""
    for entry in of_source._library.photos() if is_changed else ():
        of_source.work(entry.id).set_done(True)
    client = TestClient(Starlette(routes=of_source.routes))
    answer = client.post("/api/export", json={"format": format}).json()
    assert (answer["count"], answer["failed"]) == (2, {})
    folder = tmp_path / "work" / "export" / format
    if format == "coco":
        content = json.loads((folder / "annotations.json").read_text())
        assert [image["file_name"] for image in content["images"]] == ["cat.jpg", "x/dog.jpg"]
        assert len(open_sources([f"coco={tmp_path / 'images'},{folder / 'annotations.json'}"])) == 2
    elif format == "labelme":
        (path,) = folder.rglob("cat.json")
        described = json.loads(path.read_text())
        assert (path.parent / described["imagePath"]).resolve() == tmp_path / "images" / "cat.jpg"
    else:
        packed = zipfile.ZipFile(io.BytesIO(client.get(answer["download"]).content))
        picture = next(name for name in packed.namelist() if name.endswith("cat.jpg"))
        assert packed.read(picture) == (tmp_path / "images" / "cat.jpg").read_bytes()
    assert not (tmp_path / "work" / "pixels").exists()
    if is_changed:
        state = read_work(of_source.works.path_of("coco/cat.jpg")).state
        assert (of_source.works.folder / "coco" / state.photo.path).resolve() == tmp_path / "images" / "cat.jpg"


def test_a_photo_from_an_archive_is_written_where_a_format_names_its_file(tmp_path):
    record = Record("sa1b/cat", rgb_of(0), (square(10, 10),))
    library = Library(tmp_path, [], [record])
    objects = Objects(works_in(tmp_path / "work", imported=Importer(library)), library, Squares())
    client = TestClient(Starlette(routes=objects.routes))
    answer = client.post("/api/export", json={"format": "yolo"}).json()
    packed = zipfile.ZipFile(io.BytesIO(client.get(answer["download"]).content))
    (picture,) = [name for name in packed.namelist() if name.endswith(".png")]
    assert np.array_equal(np.asarray(Image.open(packed.open(picture))), record.rgb)


def test_a_label_map_brings_masks_back_and_its_legend_the_classes(exported, objects, tmp_path):
    _, folder = exported("labelmap")
    source = open_sources([f"labelmap={tmp_path},{folder}"])
    record = next(source[index] for index in range(len(source)) if source.name(index) == "labelmap/a.png")
    again = {(rle["counts"], name) for rle, name in zip(record.masks, record.classes, strict=True)}
    assert again == {(rle["counts"], name or "object") for name, rle in NAMED}
    legend = json.loads((folder / "a_labels.json").read_text())
    labels = np.asarray(Image.open(folder / "a_labels.png"))
    for number, described in legend.items():
        names = [name for name, rle in NAMED if np.array_equal(labels == int(number), decode_rle(rle))]
        assert [name or "object" for name in names] == [described["class"]]


def test_pictures_of_masks_bring_masks_back(exported, objects, tmp_path):
    _, folder = exported("png")
    source = open_sources([f"pairs={tmp_path},{folder}"])
    record = next(source[index] for index in range(len(source)) if source.name(index) == "pairs/a.png")
    assert {rle["counts"] for rle in record.masks} == {rle["counts"] for _, rle in NAMED}
    assert (folder / "a" / "metadata.csv").read_text().splitlines()[1].endswith(',"cat"')


def test_labelme_brings_classes_back_and_masks_as_it_draws_them(exported, objects):
    """Its polygons are drawn with their outlines, which the pixels of a mask are enlarged by."""
    _, folder = exported("labelme", options={"polygon_tolerance": 0})
    again = objects_of(open_sources([f"labelme={folder / 'labelme'}"])[0])
    expected = sorted((name or "object" for name, _ in NAMED))
    assert sorted(new.class_ or "" for new in again) == expected
    overlaps = rle_iou([rle for _, rle in NAMED], [new.rle for new in again])
    for (name, _), overlap in zip(NAMED, overlaps, strict=True):
        assert overlap.max() > 0.6
        assert again[int(overlap.argmax())].class_ == (name or "object")


def test_yolo_numbers_classes_and_names_them(exported):
    _, folder = exported("yolo")
    assert (folder / "yolo" / "data.yaml").read_text().endswith("names:\n  0: dog\n  1: cat\n  2: object\n")
    rows = (folder / "yolo" / "labels" / "a.txt").read_text().splitlines()
    assert [row.split()[0] for row in rows] == ["1", "0", "1", "2"]
    assert (folder / "yolo" / "labels" / "done.txt").read_text() == ""


def test_run_lengths_have_class_name_and_score(exported, objects):
    objects.work("x").change({"o1": {"name": "Rex"}})
    _, folder = exported("rle")
    (record,) = json.loads((folder / "x" / "b.json").read_text())
    assert (record["class"], record["name"], record["predicted_iou"]) == ("dog", "Rex", 0.9)
    assert record["segmentation"] == square(20, 20)


def test_files_of_the_last_export_go_away_and_others_stay(exported, client):
    _, folder = exported("rle")
    (folder / "mine.txt").write_text("a note")
    answer, _ = exported("rle", photos=["a"])
    assert answer["files"] == ["a.json"]
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"a.json", "mine.txt", ".samjax-export.json"}
    packed = zipfile.ZipFile(io.BytesIO(client.get("/api/export/rle.zip").content))
    assert packed.namelist() == ["rle/a.json"]


def test_a_changed_photo_is_told_and_the_others_are_written(exported, objects, monkeypatch):
    known = objects._library.known
    changed = dataclasses.replace(known["x"], hash="f" * 64)
    monkeypatch.setattr(objects._library, "read", lambda id: changed if id == "x" else known[id])
    answer, _ = exported("rle")
    assert answer["count"] == 2
    assert "has changed" in answer["failed"]["x/b.png"]


def test_a_photo_that_vanishes_is_told_and_the_others_are_written(exported, objects, monkeypatch):
    known = objects._library.known

    def read(id: str):
        if id == "x":
            raise UnknownPhoto("there is no photo 'x'")
        return known[id]

    monkeypatch.setattr(objects._library, "read", read)
    answer, _ = exported("rle")
    assert answer["count"] == 2
    assert answer["failed"] == {"x/b.png": "the photo is not there any more"}
    monkeypatch.setattr(objects._library, "facts", read)
    answer, _ = exported("rle")
    assert answer["count"] == 2
    assert "there is no photo" in answer["failed"]["x/b.png"]


def test_photos_whose_names_differ_in_case_are_exported_apart_and_hinder_no_others(tmp_path):
    library = Library(tmp_path, ["a.png", "b.png", "B.png", "c.png"])
    objects = Objects(works_in(tmp_path / "work"), library, Squares())
    for id in "abB":
        objects.work(id).add([clicked(20, 20, class_=id)])
    client = TestClient(Starlette(routes=objects.routes))
    answer = client.post("/api/export", json={"format": "rle", "photos": ["a", "b"]}).json()
    assert (answer["files"], answer["failed"]) == (["a.json", "b.json"], {})
    answer = client.post("/api/export", json={"format": "rle"}).json()
    folder = objects.works.folder / "export" / "rle"
    assert answer["count"] == 3
    assert len({name.casefold() for name in answer["files"]}) == 3
    assert "a.json" in answer["files"]
    assert {json.loads((folder / name).read_text())[0]["class"] for name in answer["files"]} == set("abB")


@pytest.mark.parametrize(
    "photos",
    [
        ["dog.jpg", "dog.png", "dog_jpg.png", "cat.jpg"],
        ["A/x.png", "a/X.png", "cat.jpg"],
        ["coco/a.png", "coco_/a.png"],
        ["a.b.png", "a.b.jpg", "a_b_png.jpg", "a_b_png/c.jpg"],
        ["a.png", "a.jpg", "a_png/b.png", "a.png/c.png"],
        ["n" * 300 + ".png", "n" * 301 + ".png"],
        ["co:lon.png", "co%3Alon.png"],
    ],
)
def test_outputs_of_all_photos_have_names_of_their_own(photos):
    """Without regard to case, and none is a folder that another needs."""
    names = exports.names_of(photos)
    folders = {str(parent).casefold() for name in names for parent in PurePosixPath(name).parents}
    assert len({name.casefold() for name in names}) == len(photos)
    assert not folders.intersection(name.casefold() for name in names)
    if "cat.jpg" in photos:
        assert names[photos.index("cat.jpg")] == "cat"


def test_nothing_but_an_export_is_packed(client, exported, objects, tmp_path):
    assert client.get("/api/export/rle.zip").status_code == 400
    assert client.get("/api/export/exe.zip").status_code == 404
    _, folder = exported("yolo")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    link = folder / "yolo" / "images" / "a.png"
    link.unlink()
    link.symlink_to(secret)
    (folder / ".samjax-export.json").write_text(json.dumps(["yolo/images/a.png", "../../classes.json", "/etc/passwd"]))
    assert client.get("/api/export/yolo.zip").status_code == 400
    link.unlink()
    link.symlink_to(tmp_path / "a.png")
    packed = zipfile.ZipFile(io.BytesIO(client.get("/api/export/yolo.zip").content))
    assert packed.namelist() == ["yolo/yolo/images/a.png"]


def test_an_archive_is_bounded(exported, objects):
    _, folder = exported("rle")
    with pytest.raises(BadRequest, match=r"take it from the folder export/rle"):
        exports.archive(folder, [], most=100)


@pytest.mark.parametrize(
    "given",
    [
        {"format": "exe"},
        {"format": "coco", "photos": "a"},
        {"format": "coco", "options": {"classes": ["a"]}},
        {"format": "coco", "options": {"polygons": 1}},
        {"format": "coco", "options": {"polygon_tolerance": -1}},
        {"format": "labelmap", "options": {"labelmap_suffix": "../x"}},
    ],
)
def test_what_cannot_be_exported_is_refused(client, objects, given):
    assert client.post("/api/export", json=given).status_code == 400
