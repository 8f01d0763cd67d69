"""Which photos a job finds, in which order, and their names."""

import pytest
from example_outputs import Thresholds, job, save
from PIL import Image

from samjax.everything import find_photos, photo_size, run
from samjax.pictures import ENDINGS


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
