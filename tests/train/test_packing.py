"""The bundled model's data in small: photos and masks of all its sources, without GrabCut's photos."""

import json
import tarfile

import numpy as np
import pytest
from example_annotations import jpeg, sa1b_json
from example_models import shapes_photo


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The packed data of a folder laid out like the one that is meant."""
    from samjax.train.packing import pack

    data = tmp_path_factory.mktemp("data")
    origins = {
        "sa_mini": ["bsds500/1001", "bsds500/65019", "camvid/0001TP_9", "camvid/0016E5_7", "ccp/3"],
        "more": ["coco/12"],
    }
    number = 0
    for folder, sources in origins.items():
        for split in ("train", "val"):
            (data / folder / split).mkdir(parents=True)
            for origin in sources:
                photo, masks = shapes_photo(300, 500, seed=number)
                described = sa1b_json(number, masks)
                described["image"]["source"] = origin
                (data / folder / split / f"sa_{number}.jpg").write_bytes(jpeg(photo))
                (data / folder / split / f"sa_{number}.json").write_text(json.dumps(described))
                number += 1
    for folder, photos in (("carparts", "carparts/{}"), ("dsb2018", "dsb2018/images/{}")):
        for split in ("train", "val"):
            photo, masks = shapes_photo(60, 80, seed=number)
            place = data / photos.format(split)
            place.mkdir(parents=True)
            (place / "a.jpg").write_bytes(jpeg(photo))
            annotations = [
                {"image_id": 1, "category_id": 1, "iscrowd": 0, **annotation}
                for annotation in sa1b_json(number, masks)["annotations"]
            ]
            images = [{"id": 1, "file_name": "a.jpg", "width": 80, "height": 60}]
            content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "shape"}]}
            (data / folder / f"{split}.json").write_text(json.dumps(content))
            number += 1
    out = data / "packed"
    return out, pack(data, out, side=128, quality=80, masks=2), data


def test_there_is_a_tar_for_each_source_and_each_drive(packed):
    out, counts, _ = packed
    sources = {"bsds500", "camvid-0001TP", "camvid-0016E5", "ccp", "coco", "carparts", "dsb2018"}
    assert {path.relative_to(out).as_posix() for path in out.glob("*/*")} == {
        f"{split}/{source}.tar" for split in ("train", "val") for source in sources
    }
    assert set(counts) == {f"{split}/{source}" for split in ("train", "val") for source in sources}
    assert all(photos == 1 for photos, _ in counts.values())


def test_photos_of_grabcut_are_left_out(packed):
    out, _, _ = packed
    with tarfile.open(out / "train" / "bsds500.tar") as tar:
        origins = [json.load(tar.extractfile(name))["image"]["source"] for name in tar.getnames() if "json" in name]
    assert origins == ["bsds500/1001"]


def test_masks_lie_on_the_small_photos_as_they_lay_on_the_large_ones(packed):
    """Pillow's resizing is the oracle; edges may lie a pixel apart."""
    from PIL import Image

    from samjax.ops.rle import decode_rle
    from samjax.readers.sources import open_sources

    out, _, data = packed
    large = open_sources([f"sa1b={data / folder / 'train'}" for folder in ("sa_mini", "more")])
    before = {record.origin: record for record in map(large.__getitem__, range(len(large)))}
    small = open_sources([f"sa1b={out / 'train'}"])
    assert len(small) == 7
    compared = 0
    for record in map(small.__getitem__, range(7)):
        height, width = record.rgb.shape[:2]
        assert (height, width) == ((60, 80) if record.origin is None else (77, 128))  # the small ones stay as they are
        assert 1 <= len(record.masks) <= 2
        if record.origin is None:
            continue
        original = before[record.origin]
        for rle, index in zip(record.masks, record.ids, strict=True):
            whole = Image.fromarray(decode_rle(original.masks[index]))
            expected = np.asarray(whole.resize((width, height), Image.Resampling.NEAREST))
            mask = decode_rle(rle)
            assert (mask & expected).sum() > 0.9 * (mask | expected).sum()
            compared += 1
    assert compared >= 5


def test_what_is_there_is_not_overwritten(packed):
    from samjax.train.packing import pack

    out, _, data = packed
    with pytest.raises(FileExistsError, match="packed exists already"):
        pack(data, out)
