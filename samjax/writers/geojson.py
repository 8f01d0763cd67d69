"""GeoJSON (RFC 7946: longitude and latitude, WGS 84) of photos that say where on Earth they are."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float

from samjax.atomic import replacing
from samjax.transforms import Size
from samjax.writers.outlines import outline
from samjax.writers.photo import Options, SegmentedPhoto

PROPERTIES = ("area", "predicted_iou", "stability_score", "class", "name")
DIGITS = 9  # of a degree: a tenth of a millimetre


def check(photo: Path, options: Options) -> None:
    """Raises ValueError if a photo has no transform or no coordinate system, or rasterio is not installed."""
    _georeference(photo, options)


def write(found: SegmentedPhoto, folder: Path, options: Options) -> list[Path]:
    """Writes NAME.geojson: a feature a mask, a MultiPolygon where it has several parts.

    Raises ValueError for a photo that its EXIF orientation turns against its georeference.
    """
    from rasterio.warp import transform_geom

    transform, crs, size = _georeference(found.photo.path, options)
    if size != found.size:
        raise ValueError(
            f"{found.photo.path} is {found.size} (height, width) upright and {size} in its georeference: "
            "its EXIF orientation turns it; remove that"
        )
    features = []
    for number, record in enumerate(found.records):
        parts = outline(record["segmentation"], options.polygon_tolerance)
        if not parts:
            continue
        shape = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
        placed = shapely.transform(shape, lambda points: _placed(points, transform))
        properties = {"id": number, **{key: record[key] for key in PROPERTIES if record.get(key) is not None}}
        geometry = transform_geom(crs, "EPSG:4326", shapely.geometry.mapping(placed))
        rounded = shapely.transform(shapely.geometry.shape(geometry), lambda points: points.round(DIGITS))
        oriented = shapely.orient_polygons(rounded)  # RFC 7946: outer rings counter-clockwise
        features.append({"type": "Feature", "geometry": shapely.geometry.mapping(oriented), "properties": properties})
    path = folder / f"{found.photo.name}.geojson"
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return [path]


def _placed(points: Float[np.ndarray, "V 2"], t: Any) -> Float[np.ndarray, "V 2"]:
    """Pixels (x, y) by rasterio's affine transform."""
    return points @ np.array([[t.a, t.d], [t.b, t.e]]) + (t.c, t.f)


def _georeference(photo: Path, options: Options) -> tuple[Any, Any, Size]:
    """Transform from pixels, coordinate system, and (height, width)."""
    try:
        import rasterio
        from rasterio.crs import CRS
        from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
    except ImportError as error:
        raise ValueError("GeoJSON needs rasterio: pip install 'samjax[geo]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(photo) as dataset:
                transform, crs, size = dataset.transform, dataset.crs, dataset.shape
            if crs is None and options.crs is not None:
                crs = CRS.from_user_input(options.crs)
    except (CRSError, ValueError) as error:
        raise ValueError(f"--crs {options.crs}: {error}") from error
    except RasterioError as error:
        raise ValueError(f"{photo} cannot be read by rasterio: {error}") from error
    if transform.is_identity:
        raise ValueError(f"{photo} has no transform (no GeoTIFF, no world file): GeoJSON cannot say where it is")
    if crs is None:
        raise ValueError(f"{photo} has a transform and no coordinate system: name it, e.g. --crs EPSG:32632")
    return transform, crs, size
