"""The data of samjax-tiny in a few megabytes: small photos in WebP, masks as run lengths, a tar for each source.

    python -m samjax.train.packing DATA packed [--side 352] [--quality 35] [--masks 20]

3,974 photos of train and 696 of val with 50 thousand masks are 48 MiB, and 34 MiB as a tar.xz. The tars are read as
SA-1B is, so sources and drives can be held out by name:

    samjax train tiny_gpu --data.train sa1b=packed/train --data.val sa1b=packed/val --out runs/tiny
    samjax train tiny_gpu --data.train sa1b=packed/train/coco.tar sa1b=packed/train/pets.tar ...
"""

import argparse
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from samjax.atomic import replacing
from samjax.ops.rle import encode_placed
from samjax.readers.record import BadRecord, Record, Source
from samjax.readers.sources import open_sources

from .data.placement import PlacedMask, Placement, place_photo

# Folders under DATA, and what they are as sources. Their photos say where they are from, if from several places.
SOURCES = {
    "sa_mini": "sa1b={data}/sa_mini/{split}",
    "more": "sa1b={data}/more/{split}",
    "carparts": "coco={data}/carparts/{split},{data}/carparts/{split}.json",
    "dsb2018": "coco={data}/dsb2018/images/{split},{data}/dsb2018/{split}.json",
}
# BSDS500's photos that are GrabCut's too, on which interactive segmentation is measured.
GRABCUT = tuple(
    f"bsds500/{name}"
    for name in (
        *("124084", "153077", "153093", "181079", "209070", "271008", "326038", "388016", "65019"),  # train
        *("106024", "189080", "208001", "21077", "24077", "227092", "304074", "37073", "376043", "69020", "86016"),
    )
)
MIN_AREA = 16  # pixels of the packed photo; smaller masks are left out


def pack(data: Path, out: Path, *, side: int = 352, quality: int = 35, masks: int = 20) -> dict[str, tuple[int, int]]:
    """Writes OUT/{train,val}/SOURCE.tar for all `SOURCES`, without `GRABCUT`'s photos.

    Args:
        data: the folder that holds the folders named in `SOURCES`.
        out: a new folder.
        side: pixels of a photo's longer side, at most.
        quality: of WebP, 0 to 100.
        masks: of a photo, at most; of more, that many are drawn.

    Returns:
        Photos and masks by tar, "train/coco".

    Raises:
        FileExistsError: `out` exists.
        ValueError, OSError: a source cannot be read.
    """
    counts: dict[str, tuple[int, int]] = {}
    with replacing(out) as folder:
        for split in ("train", "val"):
            (folder / split).mkdir(parents=True)
            tars: dict[str, tarfile.TarFile] = {}
            number = 0
            for name, spec in SOURCES.items():
                source = open_sources([spec.format(data=_escaped(data), split=split)])
                for record in sound(source):
                    if record.origin in GRABCUT:
                        continue
                    group = group_of(name, record.origin)
                    if group not in tars:
                        tars[group] = tarfile.open(folder / split / f"{group}.tar", "w")  # noqa: SIM115
                    photo, annotations = packed(record, side, quality, masks, np.random.default_rng(number))
                    if annotations:
                        _add(tars[group], f"sa_{number}.webp", photo)
                        described = _described(record, number, annotations)
                        _add(tars[group], f"sa_{number}.json", described)
                        key = f"{split}/{group}"
                        photos, count = counts.get(key, (0, 0))
                        counts[key] = photos + 1, count + len(annotations)
                    number += 1
            for tar in tars.values():
                tar.close()
    return counts


def group_of(name: str, origin: str | None) -> str:
    """The tar of a photo: its data set, and of CamVid its drive, because frames of one drive are much alike."""
    if origin is None:
        return name
    group, _, photo = origin.partition("/")
    return f"{group}-{photo.partition('_')[0]}" if group == "camvid" else group


def packed(
    record: Record, side: int, quality: int, masks: int, random: np.random.Generator
) -> tuple[bytes, list[dict]]:
    """The small photo in WebP, and its masks' annotations."""
    from PIL import Image

    original = record.rgb.shape[:2]
    longest = min(side, max(original))
    placement = Placement.fitting(original, (longest, longest))
    file = io.BytesIO()
    Image.fromarray(place_photo(record.rgb, placement)).save(file, "WEBP", quality=quality, method=6)
    annotations = []
    for index in random.permutation(len(record.masks)):
        mask = PlacedMask.of(record.masks[index], placement)
        if mask.area < MIN_AREA:
            continue
        x0, y0, x1, y1 = mask.box
        rle = encode_placed(mask.draw((x0, y0, x1, y1)), (x0, y0), placement.size)
        annotations.append({"id": int(index), "segmentation": rle})
        if len(annotations) == masks:
            break
    return file.getvalue(), annotations


def sound(source: Source) -> Iterator[Record]:
    """The records that can be used."""
    for index in range(len(source)):
        try:
            yield source[index]
        except BadRecord:
            continue


def _described(record: Record, number: int, annotations: Sequence[dict]) -> bytes:
    image = {"image_id": number, "file_name": f"sa_{number}.webp"}
    if record.origin is not None:
        image["source"] = record.origin
    return json.dumps({"image": image, "annotations": annotations}, separators=(",", ":")).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def main() -> None:
    """The command: packs, and prints photos, masks and size of each tar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds " + ", ".join(SOURCES))
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--side", type=int, default=352)
    parser.add_argument("--quality", type=int, default=35)
    parser.add_argument("--masks", type=int, default=20)
    options = parser.parse_args()
    counts = pack(options.data, options.out, side=options.side, quality=options.quality, masks=options.masks)
    for name, (photos, masks) in counts.items():
        size = (options.out / f"{name}.tar").stat().st_size
        print(f"{name:<28}{photos:>6} photos {masks:>7} masks {size / 2**20:>6.1f} MiB")
    total = sum(path.stat().st_size for path in options.out.glob("*/*.tar"))
    print(f"{total / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
