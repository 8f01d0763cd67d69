"""The overlay picture: for people."""

from pathlib import Path

from samjax.atomic import replacing
from samjax.visualise import overlay_labels
from samjax.writers.photo import Options, SegmentedPhoto


def write(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes NAME_overlay.jpg."""
    path = folder / f"{found.photo.name}_overlay.jpg"
    with replacing(path, overwrite=True) as temporary:
        overlay_labels(found.rgb, found.labels).save(temporary, format="JPEG", quality=90)
    return [path]
