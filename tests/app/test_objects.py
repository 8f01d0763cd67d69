"""The routes of objects: what is acknowledged is on disk, and is what the steps give."""

import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the page's packages are not installed (pip install samjax[app])")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from example_work import PHOTO, SIZE, Library, Squares, square, works_in
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from samjax.app import durable
from samjax.app.objects import Objects
from samjax.app.polygons import polygons
from samjax.ops.rle import decode_rle, encode_rle
from samjax.workfile import WorkObject, WorkState, read_work


@pytest.fixture
def objects(tmp_path) -> Objects:
    return Objects(works_in(tmp_path / "work"), Library(tmp_path), Squares())


@pytest.fixture
def client(objects) -> TestClient:
    return TestClient(Starlette(routes=objects.routes))


CLICK = {"points": [[10, 12, 1]]}


def add(client, revision: int, *objects: dict):
    return client.post("/api/photos/a/objects", json={"revision": revision, "objects": list(objects)})


def patch(client, revision: int, *changes: dict):
    return client.patch("/api/photos/a/objects", json={"revision": revision, "changes": list(changes)})


def on_disk(objects):
    return read_work(objects.works.path_of("a.png")).state


def test_an_object_is_the_mask_of_its_steps(client, objects):
    steps = [CLICK, {"points": [[10, 12, 1], [30, 20, 1]], "refine": True, "multimask": False}]
    answer = add(client, 0, {"steps": steps, "class": "cat", "colour": "#ff0000", "name": "left"})
    assert answer.status_code == 200
    (made,) = answer.json()["objects"]
    assert answer.json()["work"] == {"revision": 1}
    expected = decode_rle(square(10, 12)) | decode_rle(square(30, 20))
    assert made["area"] == expected.sum() == 98
    assert made["box"] == [7, 9, 34, 24]
    assert (made["class"], made["colour"], made["name"], made["source"]) == ("cat", "#ff0000", "left", "prompts")
    assert made["clicks"] == 2
    assert len(made["polygons"]) == 2
    (known,) = on_disk(objects).objects
    assert np.array_equal(decode_rle(known.rle), expected)
    assert (known.model, known.score) == ("c0ffee", 0.9)
    assert client.get("/api/photos/a/objects/o1").json() == {**made, "steps": list(known.steps), "rle": known.rle}
    assert known.steps[0] == {"points": [[10.0, 12.0, 1]]}
    assert objects.session()["classes"][0]["name"] == "cat"


@pytest.mark.parametrize("body", [b'{"revision": NaN}', b"[" * 5000, b'{"revision": ' + b"9" * 400 + b"}", b"[]"])
def test_what_is_no_json_object_is_refused_as_everywhere(client, body):
    for method, path in (("POST", "/api/photos/a/objects"), ("PATCH", "/api/photos/a"), ("PUT", "/api/classes")):
        answer = client.request(method, path, content=body)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("the body is")


def test_a_head_has_no_body_that_is_read(client):
    assert client.request("HEAD", "/api/photos/a/objects/o1", content=b"{").status_code == 404


def test_masks_of_everything_are_asked_for_again(client, objects):
    answer = add(client, 0, {"everything": {"config": {"points_per_side": 8}, "index": 2}, "class": "bar"})
    (made,) = answer.json()["objects"]
    assert (made["source"], made["box"], made["clicks"]) == ("everything", [0, 10, 60, 13], 0)
    assert on_disk(objects).objects[0].everything == {"config": {"points_per_side": 8}, "index": 2}
    assert add(client, 1, {"everything": {"config": {}, "index": 8}}).status_code == 400


def test_an_object_is_renamed_hidden_deleted_restored_and_segmented_anew(client, objects):
    add(client, 0, {"steps": [CLICK]})
    assert patch(client, 1, {"id": "o1", "name": "ear", "hidden": True, "deleted": True}).status_code == 200
    assert objects.summary(objects._library.facts("a")) == {"objects": 0, "done": False}
    assert patch(client, 2, {"id": "o1", "deleted": False, "steps": [{"points": [[30, 30, 1]]}]}).status_code == 200
    (known,) = on_disk(objects).objects
    assert (known.name, known.hidden, known.deleted, known.rle) == ("ear", True, False, square(30, 30))
    assert objects.summary(objects._library.facts("a")) == {"objects": 1, "done": False}
    assert client.patch("/api/photos/a", json={"revision": 3, "done": True}).json()["work"]["revision"] == 4
    assert objects.photo_work("a")["done"]


def test_the_mask_of_an_object_stands_for_its_id_in_steps(client, objects):
    add(client, 0, {"steps": [CLICK]})
    step = {"points": [[11, 12, 1]], "mask": {"object": "o1"}}
    assert objects.resolved("a", [step]) == [{"points": [[11, 12, 1]], "mask": {"rle": square(10, 12)}}]
    assert objects.resolved("a", "nonsense") == "nonsense"
    assert add(client, 1, {"steps": [step]}).status_code == 200
    assert on_disk(objects).objects[1].steps[0]["mask"] == {"rle": square(10, 12)}
    for wrong in ({"object": "o9"}, {"object": 1}, {"object": "o1", "rle": {}}):
        assert "object" in add(client, 2, {"steps": [{"mask": wrong}]}).json()["error"]


def test_a_change_for_an_older_revision_is_409_with_the_newest_work(client, objects):
    add(client, 0, {"steps": [CLICK]})
    count = len(objects._masks.asked)
    for answer in (
        add(client, 0, {"steps": [CLICK]}),
        patch(client, 0, {"id": "o1", "name": "x"}),
        client.patch("/api/photos/a", json={"revision": 0, "done": True}),
    ):
        assert answer.status_code == 409
        assert answer.json()["work"] == objects.photo_work("a")
    assert len(objects._masks.asked) == count  # the device is not asked for nothing
    assert on_disk(objects).revision == 1


def test_an_object_that_is_sent_again_is_added_once(client, objects):
    """After an answer that was lost, by the id that the sender gave it."""
    named = {"id": "abcdefghij", "steps": [CLICK]}
    assert add(client, 0, named).json()["objects"][0]["id"] == "abcdefghij"
    count = len(objects._masks.asked)
    again = add(client, 0, named)
    assert again.status_code == 200
    assert again.json()["work"] == {"revision": 1}
    assert [known["id"] for known in again.json()["objects"]] == ["abcdefghij"]
    assert len(objects._masks.asked) == count  # nothing is computed again
    both = add(client, 1, named, {"steps": [CLICK]})
    assert [known["id"] for known in both.json()["objects"]] == ["abcdefghij", "o1"]
    assert add(client, 2, named).json()["work"]["revision"] == 2
    assert len(on_disk(objects).objects) == 2
    for wrong in ("o1", "../../a", "ABCDEFGHIJ", 3):
        assert add(client, 2, {"id": wrong, "steps": [CLICK]}).status_code == 400
    # Sent with a revision that is not the newest any more: the sender does not know of what came after it.
    assert add(client, 0, named).json()["work"] == {"revision": 0}
    twice = {"id": "zzzzzzzzzz", "steps": [CLICK]}
    assert add(client, 2, twice, twice).status_code == 400


@pytest.mark.parametrize(
    "other",
    [
        {"steps": [{"points": [[30, 30, 1]]}]},
        {"steps": [CLICK], "name": "left"},
        {"steps": [CLICK], "class": "cat"},
        {"steps": [CLICK], "colour": "#ff0000"},
        {"everything": {"config": {}, "index": 1}},
    ],
)
@pytest.mark.parametrize("revision", [0, 1])
def test_another_object_under_an_id_that_is_taken_is_refused(client, objects, other, revision):
    add(client, 0, {"id": "abcdefghij", "steps": [CLICK]})
    answer = add(client, revision, {"id": "abcdefghij", **other})
    assert answer.status_code == 400
    assert "there is an object abcdefghij already" in answer.json()["error"]
    assert on_disk(objects).revision == 1


def test_masks_of_everything_that_are_sent_again_are_added_once(client, objects):
    sent = {"id": "abcdefghij", "everything": {"config": {"points_per_side": 8}, "index": 2}, "class": "bar"}
    first = add(client, 0, sent).json()
    assert add(client, 0, sent).json() == first


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"objects": [{"steps": [CLICK]}]}, "revision is the number"),
        ({"revision": True, "objects": [{"steps": [CLICK]}]}, "revision"),
        ({"revision": 0, "objects": []}, "a list of 1 to"),
        ({"revision": 0, "objects": [3]}, "JSON objects"),
        ({"revision": 0, "objects": [{}]}, "steps or everything"),
        ({"revision": 0, "objects": [{"steps": []}]}, "steps are a list"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "rle": square(1, 1)}]}, "has no rle"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "class": 3}]}, "class is text"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "class": " "}]}, "class is text"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "class": "n" * 201}]}, "class is text"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "colour": "red"}]}, "colour is #rrggbb"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "colour": "#ff0000;x"}]}, "colour is #rrggbb"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "colour": ""}]}, "colour is #rrggbb"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "name": None}]}, "name is text"),
        ({"revision": 0, "objects": [{"steps": [CLICK], "name": "a\nb"}]}, "name is text"),
        ({"revision": 0, "objects": [{"steps": [{"points": [[5, 5, 0]]}]}]}, "the mask of these steps is empty"),
        ({"revision": 0, "objects": [{"everything": {"config": {}}}]}, "everything is"),
        ({"revision": 0, "objects": [{"everything": {"config": {}, "index": -1}}]}, "everything is"),
    ],
)
def test_what_is_no_object_is_refused_and_nothing_is_written(client, objects, sent, message):
    answer = client.post("/api/photos/a/objects", json=sent)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert not objects.works.path_of("a.png").exists()


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 100_000, b'{"revision": 0}', b"\xff"])
def test_what_is_no_json_is_refused(client, body):
    assert client.post("/api/photos/a/objects", content=body).status_code == 400


@pytest.mark.parametrize(
    "change", [{"id": "o9", "name": "x"}, {"name": "x"}, {"id": "o1", "rle": {}}, {"id": "o1", "deleted": 1}]
)
def test_what_is_no_change_is_refused(client, objects, change):
    add(client, 0, {"steps": [CLICK]})
    assert patch(client, 1, {"id": "o1", "name": "good"}, change).status_code == 400
    assert on_disk(objects).revision == 1
    assert client.get("/api/photos/a/objects/o9").status_code == 404


def test_a_full_disk_is_507_and_what_was_there_stays(client, objects, monkeypatch):
    add(client, 0, {"steps": [CLICK]})

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "write", full)
        answer = add(client, 1, {"steps": [CLICK]})
        assert answer.status_code == 507
        assert "the disk is full" in answer.json()["error"]
        patched.setattr(durable, "write_whole", full)
        revision = objects.works.classes.revision
        given = {"revision": revision, "classes": [{"name": "cat", "colour": "#ffffff"}]}
        assert client.put("/api/classes", json=given).status_code == 507
        assert client.post("/api/export", json={"format": "rle"}).status_code == 507
    assert on_disk(objects).revision == 1
    assert objects.works.classes.listed == []
    assert add(client, 1, {"steps": [CLICK]}).status_code == 200


def test_work_that_cannot_be_used_is_422_and_other_photos_go_on(client, objects):
    path = objects.works.path_of("a.png")
    path.parent.mkdir()
    path.write_text("{}")
    answer = add(client, 0, {"steps": [CLICK]})
    assert answer.status_code == 422
    assert str(path) in answer.json()["error"]
    assert path.read_text() == "{}"
    assert client.patch("/api/photos/b", json={"revision": 0, "done": True}).status_code == 200
    assert objects.summary(objects._library.facts("a")) == {"objects": 0, "done": False}


def test_classes_have_a_revision_too(client, objects):
    classes = [{"name": "cat", "colour": "#ff0000"}]
    revision = objects.session()["classes_revision"]
    answer = client.put("/api/classes", json={"revision": revision, "classes": classes})
    assert answer.json() == {"classes": classes, "classes_revision": objects.session()["classes_revision"]}
    assert client.put("/api/classes", json={"revision": revision, "classes": []}).status_code == 409
    assert json.loads((objects.works.folder / "classes.json").read_text()) == classes


def test_outlines_enclose_the_pixels_of_the_mask():
    """Shapely's area is the oracle; a hole, two parts, and the photo's edges."""
    import shapely

    mask = np.zeros(SIZE, bool)
    mask[5:20, 0:30] = True
    mask[10:14, 8:16] = False
    mask[30:, 50:] = True
    found = polygons(encode_rle(mask), 0.0)
    assert sorted(len(part) for part in found) == [1, 2]
    shapes = [shapely.Polygon(part[0], part[1:]) for part in found]
    rows, columns = np.nonzero(mask)
    inside = shapely.contains_xy(shapely.MultiPolygon(shapes), columns + 0.5, rows + 0.5)
    assert inside.all()
    assert sum(shape.area for shape in shapes) == pytest.approx(mask.sum(), abs=2)
    assert polygons(encode_rle(np.zeros(SIZE, bool)), 0.5) == []


def test_one_damaged_work_file_does_not_hide_the_other_photos(serving, folder, service, tmp_path):
    """Nor does a name that is no UTF-8."""
    import os

    from samjax.app.library import Library as RealLibrary

    try:
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(os.fsencode(folder) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this disk takes UTF-8 alone as names")
    works = works_in(tmp_path / "out")
    objects = Objects(works, RealLibrary(str(folder), tmp_path / "out"), Squares())
    client = serving(objects=objects)
    path = works.path_of("a.png")
    path.parent.mkdir(exist_ok=True)
    state = WorkState(PHOTO, objects=(WorkObject("o1", {"counts": "0"}, "import"),))
    path.write_text(state.text())
    found = client.get("/api/photos").json()["photos"]
    assert [photo["name"] for photo in found] == ["a.png", "broken.jpg", "caf%E9.png", "more/b.png"]
    assert client.get(f"/api/photos/{found[0]['id']}").status_code == 422
    assert client.get(f"/api/photos/{found[2]['id']}").json()["name"] == "caf%E9.png"
    done = client.patch(f"/api/photos/{found[2]['id']}", json={"revision": 0, "done": True})
    assert done.status_code == 200
    assert client.get("/api/photos").json()["photos"][2]["done"]
    answer = client.post("/api/export", json={"format": "coco"}).json()
    assert answer["count"] == 1


def test_outlines_that_are_remembered_are_bounded_in_bytes_and_not_shared(monkeypatch):
    from samjax.app import polygons as module
    from samjax.app.sized_cache import SizedCache

    monkeypatch.setattr(module, "_KNOWN", SizedCache(100_000))
    random = np.random.default_rng(0)
    ragged = [encode_rle(random.random((100, 100)) < 0.5) for _ in range(8)]
    for rle in ragged:
        polygons(rle, 0.0)
        assert len(module._KNOWN._entries) == 1  # each is larger than all that is kept
    rle = square(10, 10)
    first = polygons(rle, 0.5)
    expected = [[list(map(list, ring)) for ring in part] for part in first]
    first[0][0].clear()
    assert polygons(rle, 0.5) == expected
