"""A job over many photos: which ones, resuming, failures, several processes."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from pycocotools.coco import COCO

from samjax.everything import Job, find_photos, photo_size, run
from samjax.lock import FolderInUse, working_in
from samjax.ops.rle import encode_rle
from samjax.pictures import ENDINGS
from samjax.readers.coco import Coco
from samjax.writers import FORMATS, Options


class Thresholds:
    """Stands for a mask generator: the masks are the pixels above some brightnesses."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        masks = [image[:, :, 0] > level for level in (50, 120, 200)]
        return [
            {
                "segmentation": encode_rle(mask),
                "area": int(mask.sum()),
                "bbox": [0, 0, 1, 1],
                "predicted_iou": 0.9,
                "point_coords": [[1.0, 2.0]],
                "stability_score": 0.95,
                "crop_box": [0, 0, image.shape[1], image.shape[0]],
            }
            for mask in masks
        ]


def save(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    values = np.stack([(x * 9 + y * 3 + seed * 40) % 256] * 3, 2)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five photos, in a folder and a sub-folder."""
    for number, name in enumerate(("a.png", "b.png", "c.png", "sub/a.png", "sub/z.png")):
        save(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def job(out, *formats, **changes) -> Job:
    return Job(out, formats or ("coco", "overlay"), {"threshold": 0.5}, **changes)


def files_below(out: Path) -> dict[str, bytes]:
    """But for the records of what is done."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and ".samjax" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


# Which photos


def test_folders_are_searched_in_order_without_hidden_files_and_other_things(folder, out):
    save(folder / ".hidden.png")
    save(folder / ".thumbnails" / "t.png")
    (folder / "notes.txt").touch()
    photos = find_photos([folder], out)
    assert [photo.relative for photo in photos] == ["a.png", "b.png", "c.png", "sub/a.png", "sub/z.png"]
    assert [photo.name for photo in photos] == ["a", "b", "c", "sub/a", "sub/z"]


def test_every_ending_of_a_picture_is_found_in_either_case(tmp_path, out):
    names = [f"{number}{ending}" for number, ending in enumerate((*ENDINGS, ".GIF", ".Avif"), 10)]
    for name in (*names, "a.txt", "gif"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).touch()
    assert [photo.relative for photo in find_photos([tmp_path / "in"], out)] == names


def test_files_come_in_the_order_given_and_once(folder, out):
    photos = find_photos([folder / "c.png", folder / "a.png", folder / "sub" / ".." / "c.png"], out)
    assert [photo.name for photo in photos] == ["c", "a"]


def test_equal_stems_are_told_apart(folder, out):
    save(folder / "A.jpg")  # a and A are one name to some file systems
    save(folder / "sub.png")  # the folder of --format png would be the folder of sub/a
    save(folder / "coco.png")
    names = {photo.relative: photo.name for photo in find_photos([folder], out)}
    assert names["a.png"] == "a_png"
    assert names["A.jpg"] == "A_jpg"
    assert names["sub.png"] == "sub_png"
    assert names["sub/a.png"] == "sub/a"
    assert names["coco.png"] == "coco_"


def test_several_folders_appear_in_the_names(folder, out, tmp_path):
    save(tmp_path / "more" / "a.png")
    names = [photo.name for photo in find_photos([folder, tmp_path / "more"], out)]
    assert names == ["photos/a", "photos/b", "photos/c", "photos/sub/a", "photos/sub/z", "more/a"]


def test_names_that_stay_equal_are_an_error(folder, out):
    with pytest.raises(ValueError, match="would all be called a_png and overwrite each other"):
        find_photos([folder / "a.png", folder / "sub" / "a.png"], out)


def test_results_are_no_photos(folder):
    save(folder / "out" / "a_overlay.png")
    assert len(find_photos([folder], folder / "out")) == 5
    with pytest.raises(ValueError, match="--out is the input folder"):
        find_photos([folder], folder)


def test_results_of_another_run_are_no_photos(folder, out):
    run(find_photos([folder], folder / "results"), Thresholds(), job(folder / "results"))
    assert len(find_photos([folder], out)) == 5
    with pytest.raises(ValueError, match="holds results of a run"):
        find_photos([folder / "results"], out)


def test_nothing_to_do_is_an_error(tmp_path, out):
    with pytest.raises(ValueError, match=r"there is no image in .* \(endings: \.avif, .*\.webp\)"):
        find_photos([tmp_path], out)
    with pytest.raises(ValueError, match="no image and no folder"):
        find_photos([], out)


def test_a_photos_size_is_its_upright_size(tmp_path):
    from samjax import read_image

    for orientation in (1, 3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg", exif=exif)
        assert photo_size(tmp_path / "photo.jpg") == read_image(tmp_path / "photo.jpg").shape[:2]
    (tmp_path / "broken.jpg").touch()
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read"):
        photo_size(tmp_path / "broken.jpg")


# The job


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


def test_photos_that_fail_are_reported_and_the_others_go_on(folder, out):
    (folder / "b.png").write_bytes(b"\x89PNG not a picture")
    (out / "c_overlay.jpg" / "something").mkdir(parents=True)
    photos = find_photos([folder], out)
    summary = run(photos, Thresholds(), job(out))
    assert summary.done == 3
    assert summary.failures.keys() == {str(folder / "b.png"), str(folder / "c.png")}
    assert "cannot be read as an image" in summary.failures[str(folder / "b.png")]
    assert "is not replaced" in summary.failures[str(folder / "c.png")]
    assert len(COCO(str(out / "annotations.json")).getImgIds()) == 3
    save(folder / "b.png", 1)
    assert run(photos, Thresholds(), job(out)).done == 1
    assert len(COCO(str(out / "annotations.json")).getImgIds()) == 4


def test_a_photo_that_the_device_has_no_room_for_is_a_failure_of_its_own(folder, out):
    import jax

    class Full(Thresholds):
        def __call__(self, image):
            records = super().__call__(image)
            if self.calls == 2:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nand many lines")
            return records

    summary = run(find_photos([folder], out), Full(), job(out))
    assert summary.done == 4
    kind = jax.errors.JaxRuntimeError.__name__
    assert summary.failures == {str(folder / "b.png"): f"{kind}: RESOURCE_EXHAUSTED: out of memory"}


@pytest.mark.parametrize("error", [IndexError, struct.error, shapely.errors.GEOSException])
def test_whatever_a_photo_does_wrong_the_others_go_on(folder, out, error):
    class Failing(Thresholds):
        def __call__(self, image):
            records = super().__call__(image)
            if self.calls == 2:
                raise error("for one photo")
            return records

    summary = run(find_photos([folder], out), Failing(), job(out))
    assert summary.done == 4
    assert summary.failures == {str(folder / "b.png"): f"{error.__name__}: for one photo"}


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_a_person_can_end_a_job(folder, out, end):
    def stopped(image):
        raise end

    with pytest.raises(end):
        run(find_photos([folder], out), stopped, job(out))


def test_a_photo_without_transform_fails_before_anything_is_computed(folder, out):
    pytest.importorskip("rasterio")
    generator = Thresholds()
    summary = run(find_photos([folder / "a.png"], out), generator, job(out, "geojson"))
    assert "a.png has no transform" in summary.failures[str(folder / "a.png")]
    assert generator.calls == 0


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_a_process_that_cannot_be_is_refused(out, index, count):
    with pytest.raises(ValueError, match="counts from 0"):
        job(out, process_index=index, process_count=count)


def test_an_unknown_format_is_named(out):
    with pytest.raises(ValueError, match="there is no format pascal"):
        job(out, "pascal")


def test_processes_share_the_photos_and_write_what_one_would(folder, out, tmp_path):
    photos = find_photos([folder], out)
    run(photos, Thresholds(), job(tmp_path / "alone", "coco", "yolo", "overlay"))
    shares = [job(out, "coco", "yolo", "overlay", process_index=index, process_count=2) for index in range(2)]
    first = run(photos, Thresholds(), shares[0])
    assert (first.done, first.files) == (3, [])
    assert not (out / "annotations.json").exists()
    second = run(photos, Thresholds(), shares[1])
    assert second.done == 2
    assert out / "annotations.json" in second.files
    assert files_below(out) == files_below(tmp_path / "alone")


# Killed at any moment

SLOW = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_everything
from samjax.everything import find_photos, run

class Slow(test_everything.Thresholds):
    def __call__(self, image):
        time.sleep(0.05)
        return super().__call__(image)

renames, rename = 0, Path.replace

def replace(*paths):
    global renames
    renames += 1
    if renames == {kill_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(*paths)

Path.replace = replace
out = Path({out!r})
photos = find_photos([Path({folder!r})], out)
job = test_everything.job(out, "coco", "png", "labelmap", "overlay", process_index={index}, process_count={count})
run(photos, Slow(), job)
"""


@pytest.fixture
def start(folder, out):
    """Starts a process that does the job, slowly; it kills itself before it gives a file its final name the n-th
    time."""
    processes = []

    def begin(*, index: int = 0, count: int = 1, kill_at: int = 0) -> subprocess.Popen:
        tests = str(Path(__file__).parent)
        code = SLOW.format(tests=tests, folder=str(folder), out=str(out), index=index, count=count, kill_at=kill_at)
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=environment))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def records(out: Path) -> list[str]:
    """Of what is done; os.walk because scratch folders vanish meanwhile."""
    folders = [(folder, files) for folder, _, files in os.walk(out / ".samjax") if not folder.endswith(".partial")]
    return [file for _, files in folders for file in files]


def check_files_are_whole(out: Path) -> None:
    for path in out.rglob("*"):
        if not path.is_file() or any(part.endswith(".partial") for part in path.parts):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".png", ".jpg"):
            Image.open(path).load()
        else:
            assert path.name == "metadata.csv"


def test_after_a_kill_every_file_is_whole_and_a_rerun_does_the_rest(folder, out, start, tmp_path):
    for number in range(20):
        save(folder / f"more{number}.png", number, (60, 70))
    photos = find_photos([folder], out)
    formats = ("coco", "png", "labelmap", "overlay")
    run(photos, Thresholds(), job(tmp_path / "undisturbed", *formats))

    # A photo is five renames: one for each format, then the record. Killed within the first photo, within the second,
    # at the second's record, and some time later.
    for kill_at, done in ((3, 0), (7, 1), (5, 1)):
        process = start(kill_at=kill_at)
        assert process.wait(60) == -signal.SIGKILL
        check_files_are_whole(out)
        assert len(records(out)) == done
    process = start()
    while len(records(out)) < 11:
        assert process.poll() is None
        time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_files_are_whole(out)
    assert not (out / "annotations.json").exists()

    generator = Thresholds()
    summary = run(photos, generator, job(out, *formats))
    assert summary.skipped >= 11
    assert generator.calls == 25 - summary.skipped
    assert files_below(out) == files_below(tmp_path / "undisturbed")


def test_what_a_killed_run_left_half_written_is_removed_with_its_photo(folder, out):
    for name in (
        ".a_overlay.jpg.abcd1234.partial",
        ".annotations.json.abcd1234.partial",
        ".other.jpg.abcd1234.partial",
    ):
        (out / name).mkdir(parents=True)
        (out / name / "half").touch()
    run(find_photos([folder], out), Thresholds(), job(out))
    assert [path.name for path in out.glob(".*.partial")] == [".other.jpg.abcd1234.partial"]


@pytest.mark.parametrize(("index", "count"), [(0, 1), (0, 2)])
def test_a_job_at_work_is_left_alone(folder, out, index, count):
    half = out / ".annotations.json.abcd1234.partial" / "annotations.json"
    half.parent.mkdir(parents=True)
    half.touch()
    generator = Thresholds()
    with working_in(out), pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        run(find_photos([folder], out), generator, job(out, process_index=index, process_count=count))
    assert half.exists()
    assert generator.calls == 0
    assert not files_below(out).keys() - {f"{half.parent.name}/annotations.json"}


def test_two_processes_at_once_leave_what_one_would(folder, out, start, tmp_path):
    run(find_photos([folder], out), Thresholds(), job(tmp_path / "alone", "coco", "png", "labelmap", "overlay"))
    processes = [start(index=index, count=2) for index in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert files_below(out) == files_below(tmp_path / "alone")
