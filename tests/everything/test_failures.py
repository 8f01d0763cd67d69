"""Photos that fail, people who end a job, and processes that share it."""

import struct

import pytest
import shapely
from example_outputs import Thresholds, files_below, job, save
from pycocotools.coco import COCO

from samjax.everything import find_photos, run


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
