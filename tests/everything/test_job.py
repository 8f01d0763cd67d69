"""A job over many photos: files, resuming, other settings and formats."""

import json
import os
from pathlib import Path

from example_outputs import Thresholds, files_below, job, save
from PIL import Image
from pycocotools.coco import COCO

from samjax.everything import Job, find_photos, run
from samjax.readers.coco import Coco
from samjax.writers import FORMATS, Options


def test_every_photo_gets_its_files_and_the_run_gets_one_dataset(folder, out):
    reports = []
    summary = run(find_photos([folder], out), Thresholds(), job(out), report=reports.append)
    assert (summary.done, summary.skipped, summary.failures) == (5, 0, {})
    assert [(done.photo.name, done.masks) for done in reports][:2] == [("a", 3), ("b", 3)]
    assert set(files_below(out)) == {
        "annotations.json",
        *(f"coco/{name}.json" for name in ("a", "b", "c", "sub/a", "sub/z")),
        *(f"{name}_overlay.jpg" for name in ("a", "b", "c", "sub/a", "sub/z")),
    }
    dataset = COCO(str(out / "annotations.json"))
    assert len(dataset.getImgIds()) == 5
    assert len(dataset.getAnnIds()) == 15
    with Image.open(out / "sub" / "z_overlay.jpg") as picture:
        assert picture.size == (30, 20)


# No UTF-8, a line end, an escape sequence, and letters that not every terminal has.
ODD = [os.fsdecode(name) for name in (b"caf\xe9.png", b"two\nlines.png", b"\x1b[31mred.png", "日本 é.png".encode())]


def test_photos_may_have_any_name(tmp_path, out):
    for number, name in enumerate(ODD):
        save(tmp_path / "photos" / name, number)
    formats = [name for name in FORMATS if name != "geojson"]
    summary = run(find_photos([tmp_path / "photos"], out), Thresholds(), job(out, *formats))
    assert (summary.done, summary.failures) == (4, {})
    dataset = json.loads((out / "annotations.json").read_text(encoding="utf-8"))
    names = [image["file_name"] for image in dataset["images"]]
    assert sorted(names) == sorted(["caf%E9.png", *ODD[1:]])
    json.dumps(dataset, ensure_ascii=False).encode()  # no lone surrogates
    source = Coco(str(tmp_path / "photos"), str(out / "annotations.json"))
    assert [source[index].rgb.shape for index in range(4)] == [(20, 30, 3)] * 4
    for name in ODD:
        content = json.loads((out / "labelme" / Path(name).with_suffix(".json")).read_text(encoding="utf-8"))
        assert (out / "labelme" / content["imagePath"]).exists()
    assert run(find_photos([tmp_path / "photos"], out), Thresholds(), job(out, *formats)).skipped == 4


def test_all_formats_can_be_written_at_once(folder, out):
    formats = [name for name in FORMATS if name != "geojson"]
    assert not run(find_photos([folder], out), Thresholds(), job(out, *formats)).failures
    names = set(files_below(out))
    assert {"a.json", "a/0.png", "a/metadata.csv", "a_labels.png", "yolo/data.yaml", "yolo/labels/sub/a.txt"} <= names
    assert {"labelme/sub/z.json", "coco/sub/z.json", "sub/z.json", "sub/z/2.png", "sub/z_overlay.jpg"} <= names


def test_what_is_done_is_skipped(folder, out):
    photos = find_photos([folder], out)
    run(photos[:2], Thresholds(), job(out))
    generator = Thresholds()
    summary = run(photos, generator, job(out))
    assert (summary.done, summary.skipped, generator.calls) == (3, 2, 3)
    before = files_below(out)
    generator = Thresholds()
    assert run(photos, generator, job(out)).skipped == 5
    assert generator.calls == 0
    assert files_below(out) == before
    assert run(photos, Thresholds(), job(out, overwrite=True)).done == 5
    assert files_below(out) == before


def test_a_file_that_is_missing_or_a_photo_that_has_changed_is_done_again(folder, out):
    photos = find_photos([folder], out)
    run(photos, Thresholds(), job(out))
    (out / "coco" / "b.json").unlink()
    save(folder / "c.png", 77)
    assert run(photos, Thresholds(), job(out)).done == 2
    assert (out / "coco" / "b.json").exists()


def test_other_settings_are_done_again_and_said(folder, out):
    photos = find_photos([folder], out)
    run(photos, Thresholds(), job(out, "png", "overlay"))
    messages = []
    other = Job(out, ("rle", "overlay"), {"threshold": 0.7})
    assert run(photos, Thresholds(), other, say=messages.append).done == 5
    (message,) = messages
    assert message == "5 photo(s) were done with other settings and are done again (threshold 0.5 -> 0.7)"
    assert not list(out.rglob("metadata.csv"))  # of other masks
    assert not (out / "a").exists()
    assert (out / "a.json").exists()


def test_what_other_formats_wrote_with_the_same_settings_stays(folder, out):
    photos = find_photos([folder], out)
    run(photos, Thresholds(), job(out))
    before = files_below(out)
    messages = []
    summary = run(photos, Thresholds(), job(out, "png"), say=messages.append)
    assert (summary.done, messages) == (5, [])
    assert before.items() < files_below(out).items()
    for formats in ((), ("png",), ("coco", "png", "overlay")):
        assert run(photos, Thresholds(), job(out, *formats)).skipped == 5
    save(folder / "a.png", 99)
    assert run(photos, Thresholds(), job(out, "png")).done == 1
    assert not (out / "coco" / "a.json").exists()  # of the photo as it was
    assert (out / "coco" / "b.json").exists()


def test_options_concern_the_formats_that_heed_them(folder, out):
    photos = find_photos([folder], out)
    run(photos, Thresholds(), job(out, "coco", "labelmap"))
    other = Options(polygons=True, labelmap_suffix="tiff")
    messages = []
    assert run(photos, Thresholds(), job(out, "labelmap", options=other), say=messages.append).done == 5
    (message,) = messages
    assert message.endswith("(labelmap_suffix png -> tiff)")
    assert not list(out.rglob("*_labels.png"))
    assert run(photos, Thresholds(), job(out, "coco")).skipped == 5
    assert run(photos, Thresholds(), job(out, "coco", options=other)).done == 5


def test_the_dataset_is_of_all_runs_into_a_folder(folder, out):
    photos = find_photos([folder], out)
    run(photos, Thresholds(), job(out))
    before = files_below(out)
    assert run(photos[2:3], Thresholds(), job(out, overwrite=True)).done == 1
    assert files_below(out) == before
    (folder / "new.png").touch()
    assert run(find_photos([folder / "new.png"], out), Thresholds(), job(out)).failures
    assert files_below(out) == before


def test_a_run_of_failures_writes_no_dataset(folder, out):
    (folder / "a.png").write_bytes(b"broken")
    assert run(find_photos([folder / "a.png"], out), Thresholds(), job(out, "coco", "yolo")).files == []
    assert not files_below(out)


def test_a_photo_is_once_in_the_dataset_when_its_name_changes(folder, out):
    run(find_photos([folder], out), Thresholds(), job(out))
    save(folder / "a.jpg", 7)
    run(find_photos([folder], out), Thresholds(), job(out))
    names = [image["file_name"] for image in json.loads((out / "annotations.json").read_text())["images"]]
    assert sorted(names) == ["a.jpg", "a.png", "b.png", "c.png", "sub/a.png", "sub/z.png"]


def test_a_failure_keeps_what_was_done_before(folder, out):
    def full(image):
        raise MemoryError

    photos = find_photos([folder], out)
    run(photos, Thresholds(), job(out))
    before = files_below(out)
    assert len(run(photos, full, job(out, "png")).failures) == 5
    assert files_below(out) == before
    assert run(photos, Thresholds(), job(out)).skipped == 5


def test_photos_may_have_long_names(folder, out):
    save(folder / f"{'n' * 235}.png")
    assert not run(find_photos([folder], out), Thresholds(), job(out)).failures


def test_files_of_ones_own_stay_where_results_are_replaced(folder, out):
    photos = find_photos([folder], out)
    run(photos, Thresholds(), job(out, "png"))
    (out / "a" / "notes.txt").touch()
    run(photos, Thresholds(), Job(out, ("rle",), {"threshold": 0.7}))
    assert [path.name for path in (out / "a").iterdir()] == ["notes.txt"]
