"""Photos with mask files."""

import io

import numpy as np
import pytest
import tifffile
from example_annotations import decoded, jpeg, png

from samjax.readers.left_out import Reason
from samjax.readers.pairs import Pairs
from samjax.readers.record import BadRecord


def as_png(mask: np.ndarray) -> bytes:
    return png(mask.astype(np.uint8) * 255)


def test_a_file_for_each_photo(tmp_path, write, photo, masks):
    write(tmp_path / "images", {"x/a.jpg": jpeg(photo), "b.png": png(photo), "c.jpg": jpeg(photo)})
    write(tmp_path / "masks", {"x/a.png": as_png(masks[0]), "b_mask.png": as_png(masks[1])})
    source = Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))
    assert [source.name(index) for index in range(len(source))] == ["b.png", "x/a.jpg"]
    np.testing.assert_array_equal(source[0].rgb, photo)
    np.testing.assert_array_equal(decoded(source[0]), [masks[1]])
    np.testing.assert_array_equal(decoded(source[1]), [masks[0]])


def test_a_folder_for_each_photo(tmp_path, write, photo, masks):
    write(tmp_path / "images", {"x/a.jpg": jpeg(photo), "b.png": png(photo)})
    write(tmp_path / "masks", {f"x/a/{number}.png": as_png(mask) for number, mask in enumerate(masks)})
    write(tmp_path / "masks", {"b/only.png": as_png(masks[2])})
    source = Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))
    np.testing.assert_array_equal(decoded(source[0]), [masks[2]])
    np.testing.assert_array_equal(decoded(source[1]), masks)
    assert source[1].ids == ("x/a/0.png", "x/a/1.png", "x/a/2.png", "x/a/3.png")


def test_the_layout_of_the_data_science_bowl(tmp_path, write, photo, masks):
    for name in ("one", "two"):
        members = {f"{name}/masks/{number}.png": as_png(mask) for number, mask in enumerate(masks)}
        write(tmp_path, {f"{name}/images/{name}.png": png(np.dstack([photo, photo[:, :, 0]])), **members})
    write(tmp_path, {"test/images/test.png": png(photo), "lost/masks/1.png": as_png(masks[0])})
    source = Pairs(str(tmp_path))
    names = [source.name(index) for index in range(len(source))]
    assert names == ["one/images/one.png", "two/images/two.png", "lost/masks/1.png"]
    for index in range(2):
        np.testing.assert_array_equal(source[index].rgb, photo)
        np.testing.assert_array_equal(decoded(source[index]), masks)
    with pytest.raises(BadRecord, match="no photo"):
        source[2]


def test_bad_masks_are_left_out_and_named(tmp_path, write, photo, masks):
    write(tmp_path / "images", {"a.jpg": jpeg(photo), "b.jpg": jpeg(photo)})
    write(
        tmp_path / "masks",
        {
            "a/1.png": as_png(masks[0]),
            "a/2.png": as_png(np.zeros_like(masks[0])),
            "a/3.png": as_png(masks[0].T),
            "a/4.png": as_png(masks[0])[:70],
            "b/1.png": as_png(masks[0][:20]),
        },
    )
    source = Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))
    record = source[0]
    np.testing.assert_array_equal(decoded(record), [masks[0]])
    assert sorted(problem.what for problem in record.problems) == ["a/2.png", "a/3.png", "a/4.png"]
    texts = {problem.what: str(problem) for problem in record.problems}
    assert texts["a/2.png"] == "a/2.png: it is empty: all of its pixels are 0"
    assert texts["a/4.png"].startswith("a/4.png: it cannot be read as an image")
    assert "40 x 60 pixels, the photo 60 x 40" in str(record.problems)
    with pytest.raises(BadRecord, match="60 x 20 pixels, the photo 60 x 40"):
        source[1]


def test_several_files_of_one_name_are_counted(tmp_path, write, photo, masks):
    write(tmp_path / "images", {"a.jpg": jpeg(photo), "b.jpg": jpeg(photo)})
    write(tmp_path / "masks", {name: as_png(masks[0]) for name in ("a.png", "a_mask.png", "b.png", "c/1.png")})
    source = Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))
    assert [source.name(index) for index in range(len(source))] == ["b.jpg", "a.jpg", "c/1.png (masks)"]
    with pytest.raises(BadRecord, match=r"several mask files of its name: a\.png, a_mask\.png"):
        source[1]


def test_masks_that_were_saved_lossy_are_cut(tmp_path, write, photo, masks):
    drawn = np.kron(masks[0], np.ones((4, 4), bool))
    write(tmp_path, {"images/a.jpg": jpeg(np.kron(photo, np.ones((4, 4, 1), np.uint8)))})
    write(tmp_path, {"masks/a.jpg": jpeg(drawn.astype(np.uint8) * 255)})
    (mask,) = decoded(Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))[0])
    assert (mask != drawn).mean() < 0.002


def test_each_page_of_a_file_is_an_object(tmp_path, write, photo, masks):
    stack, empty = io.BytesIO(), [masks[0], np.zeros_like(masks[0])]
    tifffile.imwrite(stack, np.stack(masks).astype(np.uint8), photometric="minisblack", compression="lzw")
    short = io.BytesIO()
    tifffile.imwrite(short, np.stack(empty).astype(np.uint8), photometric="minisblack")
    write(tmp_path / "images", {"a.jpg": jpeg(photo), "b.jpg": jpeg(photo)})
    write(tmp_path / "masks", {"a.tif": stack.getvalue(), "b.tif": short.getvalue()})
    source = Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))
    np.testing.assert_array_equal(decoded(source[0]), masks)
    assert source[0].ids == ("a.tif/1", "a.tif/2", "a.tif/3", "a.tif/4")
    np.testing.assert_array_equal(decoded(source[1]), masks[:1])
    (problem,) = source[1].problems
    assert str(problem).startswith("b.tif/2: ")
    assert "is empty" in str(problem)


def test_a_label_map_is_no_mask(tmp_path, write, photo, masks):
    labels = masks[0] + 2 * masks[1].astype(np.uint8)
    write(tmp_path, {"images/a.jpg": jpeg(photo), "masks/a.png": png(labels)})
    with pytest.raises(BadRecord, match=r"\(a\.png: it has the numbers 1, 2: .*several objects; give it as labelmap="):
        Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))[0]


def test_folders_without_pairs_are_errors(tmp_path, write, photo):
    write(tmp_path / "images", {"a.jpg": jpeg(photo)})
    write(tmp_path / "masks", {})
    with pytest.raises(ValueError, match="no folder"):
        Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match="no photo with a mask"):
        Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))
    with pytest.raises(ValueError, match="no NAME/images"):
        Pairs(str(tmp_path / "images"))


def test_empty_masks_are_photos_without_objects(tmp_path, write, photo, masks):
    nothing = as_png(np.zeros_like(masks[0]))
    write(tmp_path / "images", {f"{name}.jpg": jpeg(photo) for name in "abcd"})
    write(tmp_path / "masks", {"a.png": nothing, "b/1.png": nothing, "b/2.png": nothing, "c.png": as_png(masks[0])})
    source = Pairs(str(tmp_path / "images"), str(tmp_path / "masks"))
    records = [source[index] for index in range(len(source))]
    assert [len(record.masks) for record in records] == [0, 0, 1]
    assert [len(record.problems) for record in records] == [0, 2, 0]  # a file of its own for nothing is odd
    assert source.left_out.photos == {Reason.NO_ANNOTATIONS: 1}
