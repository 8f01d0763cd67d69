"""Work is computed again to the bit, by the same model and from the same photo."""

import dataclasses

import numpy as np
import pytest
from example_models import random_photo, random_sam
from PIL import Image

from samjax.app.library import KnownPhoto, OpenPhoto
from samjax.app.replay import FreshEmbeddings, made_by, replay, run, work_files
from samjax.app.searching import generation_config
from samjax.app.service import Service
from samjax.app.steps import steps_from_json
from samjax.app.work import NewObject, Work, WorkFolder
from samjax.ops.rle import decode_rle, encode_rle, rle_area
from samjax.pictures import image_hash
from samjax.workfile import BadWorkFile, read_work

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


@pytest.fixture(scope="module")
def sam():
    return random_sam()


@pytest.fixture(scope="module")
def service(sam) -> Service:
    return Service(sam, "random", FreshEmbeddings(sam))


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return random_photo(60, 90)


@pytest.fixture(scope="module")
def made(service, rgb) -> list[NewObject]:
    """Objects of clicks, of a box with corrections, of a drawn mask, of everything; and one that was imported."""
    photo = OpenPhoto("a", "a.png", None, rgb.shape[:2], image_hash(rgb), rgb)

    def segmented(*steps: dict) -> NewObject:
        checked = steps_from_json(list(steps))
        (mask,) = service.masks(photo.size, service.answer(photo, lambda: photo, checked), only=[checked[-1].chosen])
        return NewObject(mask.rle, "prompts", steps=steps, score=mask.iou)

    drawn = np.zeros(photo.size, bool)
    drawn[10:40, 20:60] = True
    config = generation_config(CONFIG).with_thresholds(service.sam.thresholds)
    found = service.everything(photo, lambda: photo, config, lambda share: None)
    return [
        segmented({"points": [[30.0, 20.0, 1]], "chosen": 2}),
        segmented(
            {"box": [10.0, 5.0, 70.5, 50.0], "multimask": False},
            {"box": [10.0, 5.0, 70.5, 50.0], "points": [[30.0, 20.0, 0]], "refine": True, "chosen": 1},
            {"points": [[30.0, 20.0, 0], [50.0, 40.0, 1]], "refine": True, "multimask": False},
        ),
        segmented({"mask": {"rle": encode_rle(drawn)}, "points": [[30.0, 20.0, 1]], "multimask": False}),
        NewObject(found[0]["segmentation"], "everything", everything={"config": config.journal_key(), "index": 0}),
        NewObject(encode_rle(drawn), "import"),
    ]


@pytest.fixture
def work(tmp_path, service, rgb, made) -> Work:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    works = WorkFolder(tmp_path / "work", dataclasses.asdict(service.model))
    opened = works.open("a", "a.png", image_hash(rgb), rgb.shape[:2], tmp_path / "a.png")
    opened.add(made)
    opened.change({"o1": {"deleted": True}})
    return opened


def test_everything_that_is_kept_comes_out_the_same(work, sam):
    """Of a service that remembers nothing."""
    outcome = replay(work.path, Service(sam, "random", FreshEmbeddings(sam)))
    assert (outcome.same, outcome.differences, outcome.imported, outcome.others) == (4, (), 1, 0)
    assert str(outcome) == f"{work.path}: 4 of 4 masks the same, 1 imported"


def test_a_mask_that_differs_is_told_by_its_pixels(work, service):
    """One pixel is enough."""
    kept = work.state.find("o2").rle
    mask = decode_rle(kept)
    mask[0, 0] = not mask[0, 0]
    work.change({"o2": {"rle": encode_rle(mask)}})
    (difference,) = replay(work.path, service).differences
    assert (difference.id, difference.pixels) == ("o2", 1)
    area = rle_area(kept)
    assert difference.iou == pytest.approx(min(area, mask.sum()) / max(area, mask.sum()))


def test_a_number_that_is_not_found_any_more_differs(work, service):
    work.change({"o4": {"everything": {"config": work.state.find("o4").everything["config"], "index": 999}}})
    (difference,) = replay(work.path, service).differences
    assert (difference.id, difference.iou) == ("o4", 0.0)


@pytest.fixture(scope="module")
def other(sam) -> Service:
    changed = random_sam(seed=1)
    return Service(changed, "other", FreshEmbeddings(changed))


def test_another_model_is_refused(work, other):
    with pytest.raises(ValueError, match=r"were made by random in float32 .checksum .*, and this is other"):
        replay(work.path, other)


def test_objects_of_another_model_in_the_same_file_are_left_out(work, other, service):
    again = WorkFolder(work.path.parent, dataclasses.asdict(other.model))
    photo = work.state.photo
    again.open("a", photo.name, photo.sha256, (photo.height, photo.width), work.path.parent.parent / "a.png").add(
        [NewObject(work.state.objects[0].rle, "prompts", steps=work.state.objects[0].steps)]
    )
    assert set(made_by([work.path])) == {service.model.checksum, other.model.checksum}
    outcome = replay(work.path, service)
    assert (outcome.same, outcome.others) == (4, 1)
    assert "1 of another model left out" in str(outcome)


def test_a_changed_or_missing_photo_is_refused(work, service, rgb):
    path = work.path.parent.parent / "a.png"
    changed = rgb.copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(path)
    with pytest.raises(ValueError, match=r"a\.png has changed"):
        replay(work.path, service)
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.png is missing"):
        replay(work.path, service)


def test_the_command_finds_the_model_and_says_each_file(work, sam, service):
    asked, said = [], []

    def load(*given):
        asked.append(given)
        return sam, "random"

    folder = work.path.parent
    assert run([folder], load, said.append) == 0
    assert asked == [("random", "float32", (64, 64))]
    assert said == [f"{work.path}: 4 of 4 masks the same, 1 imported"]
    work.change({"o3": {"rle": work.state.find("o1").rle}})
    assert run([work.path], load, said.append) == 1
    assert "3 of 4 masks the same" in said[1]
    assert "\n  o3: IoU" in said[1]


def test_a_file_that_cannot_be_replayed_does_not_stop_the_others(work, sam, rgb):
    folder = work.path.parent
    state = dataclasses.replace(work.state, photo=dataclasses.replace(work.state.photo, path="gone.png"))
    (folder / "0.png.samjax.json").write_text(state.text())
    said = []
    with pytest.raises(ValueError, match=r"gone\.png is missing"):
        run([folder], lambda *_: (sam, "random"), said.append)
    assert len(said) == 1
    (folder / "0.png.samjax.json").write_text("{")
    with pytest.raises(BadWorkFile, match="is damaged"):
        run([folder], lambda *_: (sam, "random"), said.append)


def test_what_is_no_work_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no work file in"):
        work_files([tmp_path])
    for path in (tmp_path / "a.png", tmp_path / "gone.samjax.json"):
        with pytest.raises(ValueError, match="is no work file"):
            work_files([path])


def test_replaying_changes_no_file(work, service):
    before = {path: path.read_bytes() for path in work.path.parent.rglob("*")}
    replay(work.path, service)
    assert {path: path.read_bytes() for path in work.path.parent.rglob("*")} == before
    assert read_work(work.path).state == work.state


def test_the_parts_of_a_known_photo_are_those_of_an_open_one():
    """`replay` makes photos of the library's kind without a library."""
    known = {field.name for field in dataclasses.fields(KnownPhoto)}
    assert {field.name for field in dataclasses.fields(OpenPhoto)} == known | {"rgb"}
