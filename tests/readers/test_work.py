"""Work of the interactive page as a source."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from example_annotations import decoded, png

from samjax.ops.rle import encode_rle
from samjax.pictures import image_hash
from samjax.readers.left_out import Reason
from samjax.readers.record import BadRecord, Click
from samjax.readers.sources import open_sources
from samjax.readers.work import clicks_of
from samjax.workfile import WorkObject, WorkPhoto, WorkState, journal_line


@pytest.fixture
def state(photo, masks) -> WorkState:
    """Work with two objects: a cat that was clicked on thrice, a dog found by everything-mode; and a deleted one."""
    steps = (
        {"points": [[20.0, 15.0, 1]]},
        {"points": [[20.0, 15.0, 1], [40.0, 15.0, 0]], "refine": True},
        {"points": [[20.0, 15.0, 1], [40.0, 15.0, 0], [21.5, 15.0, 1]], "refine": True, "multimask": False},
    )
    objects = (
        WorkObject("o1", encode_rle(masks[0]), "prompts", class_="cat", steps=steps, score=0.9, model="m"),
        WorkObject("o2", encode_rle(masks[1]), "everything", class_="dog", everything={"config": {}, "index": 4}),
        WorkObject("o3", encode_rle(masks[2]), "import", deleted=True),
    )
    described = WorkPhoto("a.png", image_hash(photo), *photo.shape[:2], "../a.png")
    return WorkState(described, ({"name": "tiny", "checksum": "m"},), 7, True, objects)


@pytest.fixture
def folder(tmp_path, write, photo, state):
    """A folder with the work on one photo, which lies above it."""
    write(tmp_path, {"a.png": png(photo), "work/a.png.samjax.json": state.text().encode()})
    return tmp_path / "work"


def test_a_record_has_the_masks_classes_and_clicks_of_the_work(folder, photo, masks):
    (folder / "classes.json").write_text(json.dumps([{"name": "horse", "colour": "#000000"}, {"name": "dog"}]))
    source = pickle.loads(pickle.dumps(open_sources([f"work={folder}"])))
    record = source[0]
    assert len(source) == 1
    assert source.name(0) == record.name == "work/a.png"
    assert np.array_equal(record.rgb, photo)
    assert np.array_equal(decoded(record), masks[:2])
    assert record.ids == ("o1", "o2")
    assert record.classes == ("cat", "dog")
    assert record.categories == (3, 2)
    assert record.clicks == ((Click(20.0, 15.0, 1), Click(40.0, 15.0, 0), Click(21.5, 15.0, 1)), ())


def test_changes_of_the_journal_are_part_of_the_work(folder, masks):
    changes = [{"revision": 7, "done": False}, {"revision": 8, "set": [{"id": "o2", "deleted": True}]}]
    lines = b"".join(map(journal_line, changes))
    (folder / "a.png.samjax.jsonl").write_bytes(lines + b'{"revision": 9, "set": [{"id": "o1", "del')
    assert np.array_equal(decoded(open_sources([f"work={folder}"])[0]), masks[:1])


def test_clicks_that_were_taken_back_are_none():
    steps = [{"points": [[1, 2, 1], [3, 4, 0]]}, {"points": [[1, 2, 1]], "refine": True}]
    assert clicks_of(steps) == ((1, 2, 1),)
    assert clicks_of([]) == ()


def test_clicks_of_steps_before_a_new_beginning_are_none():
    steps = [{"points": [[1, 2, 1]]}, {"points": [[5, 6, 1]]}, {"points": [[5, 6, 1], [7, 8, 0]], "refine": True}]
    assert clicks_of(steps) == ((5, 6, 1), (7, 8, 0))
    assert clicks_of([*steps, {"box": [0, 0, 9, 9]}]) == ()


@pytest.mark.parametrize("prompt", [{"box": [0, 0, 9, 9]}, {"mask": {"outlines": [[[0, 0], [9, 0], [9, 9]]]}}])
def test_clicks_beside_a_box_or_a_mask_are_none(prompt):
    """Of a box and one click beside the object that click alone would ask for something else."""
    corrected = {"points": [[5, 6, 0]], "refine": True}
    assert clicks_of([prompt, corrected]) == ()
    assert clicks_of([{"points": [[1, 2, 1]]}, {**corrected, **prompt}]) == ()
    assert clicks_of([prompt, corrected, {"points": [[1, 2, 1]]}]) == ((1, 2, 1),)


def test_a_photo_without_objects_is_a_record_only_where_a_person_has_said_so(folder, state):
    empty = dataclasses.replace(state, objects=())
    (folder / "b.png.samjax.json").write_text(empty.text())
    (folder / "c.png.samjax.json").write_text(dataclasses.replace(empty, done=False).text())
    source = open_sources([f"work={folder}"])
    assert [source.name(index) for index in range(len(source))] == ["work/a.png", "work/b.png"]
    assert source[1].masks == ()
    assert source.left_out.photos == {Reason.NO_OBJECTS: 1}


def test_objects_count_whether_the_photo_is_done_or_not(folder, state):
    (folder / "a.png.samjax.json").write_text(dataclasses.replace(state, done=False).text())
    assert len(open_sources([f"work={folder}"])[0].masks) == 2


@pytest.mark.parametrize("change", ["missing", "turned", "other pixels"])
def test_a_missing_or_changed_photo_is_a_bad_record(folder, photo, change):
    path = folder.parent / "a.png"
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(png(np.rot90(photo) if change == "turned" else 255 - photo))
    with pytest.raises(BadRecord) as caught:
        open_sources([f"work={folder}"])[0]
    reason = {"missing": Reason.MISSING, "turned": Reason.SIZE}.get(change, Reason.UNREADABLE)
    assert caught.value.reason is reason
    assert "a.png" in str(caught.value)


def test_a_damaged_work_file_is_counted_and_the_others_are_read(folder):
    (folder / "b.png.samjax.json").write_text('{"samjax_work": 1, ')
    source = open_sources([f"work={folder}"])
    assert len(source) == 2
    assert source.left_out.photos == {Reason.UNREADABLE: 1}
    with pytest.raises(BadRecord, match=r"b\.png\.samjax\.json is damaged .*: bring it back"):
        source[1]


def test_a_folder_without_work_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no records in .*no file \*\.samjax\.json"):
        open_sources([f"work={tmp_path}"])


def test_work_is_read_from_a_server(folder, serve, masks, monkeypatch):
    pytest.importorskip("aiohttp")
    from samjax.readers import files

    server = serve(folder.parent)
    # Python's server lists folders as HTML only, which fsspec reads as links.
    monkeypatch.setattr(files, "names_in", lambda *_: ["a.png.samjax.json"])
    record = open_sources([f"work={server.url}/work"])[0]
    assert np.array_equal(decoded(record), masks[:2])
