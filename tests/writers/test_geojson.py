"""GeoJSON lies where rasterio says the photo lies."""

import dataclasses
import json

import numpy as np
import pytest
import shapely

from samjax.writers import FORMATS, Options, Photo

rasterio = pytest.importorskip("rasterio")

# A tenth of a degree of Switzerland, half a metre a pixel, north up: UTM zone 32 north.
UTM = (0.5, 0.0, 465_000.0, 0.0, -0.5, 5_250_000.0)


@pytest.fixture
def placed(found, tmp_path):
    """The photo as a GeoTIFF."""
    path = tmp_path / "photos" / "placed.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=120, height=80, count=3, dtype="uint8", crs="EPSG:32632",
        transform=rasterio.Affine(*UTM),
    ) as file:  # fmt: skip
        file.write(found.rgb.transpose(2, 0, 1))
    return dataclasses.replace(found, photo=Photo(path, "placed.tif", "placed"))


def in_pixels(geometry):
    """From longitude and latitude back to pixels of the photo."""
    from rasterio.warp import transform_geom

    utm = shapely.geometry.shape(transform_geom("EPSG:4326", "EPSG:32632", geometry))
    return shapely.transform(utm, lambda points: (points - UTM[2::3]) / (0.5, -0.5))


def test_features_are_the_masks_in_longitude_and_latitude(placed, masks, tmp_path):
    from rasterio.features import rasterize

    FORMATS["geojson"].check(placed.photo.path, Options())
    (path,) = FORMATS["geojson"].write(placed, tmp_path, Options(polygon_tolerance=0.0))
    assert path == tmp_path / "placed.geojson"
    collection = json.loads(path.read_text())
    assert collection.keys() == {"type", "features"}
    for feature, record, (name, mask) in zip(collection["features"], placed.records, masks.items(), strict=True):
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid, name
        west, south, east, north = shape.bounds
        assert 8.5 < west < east < 8.6
        assert 47.3 < south < north < 47.5
        np.testing.assert_array_equal(rasterize([in_pixels(feature["geometry"])], mask.shape), mask, err_msg=name)
        assert feature["properties"]["area"] == record["area"]


def test_holes_are_holes_and_outer_rings_go_counter_clockwise(placed, tmp_path):
    (path,) = FORMATS["geojson"].write(placed, tmp_path, Options())
    ring, parts = (feature["geometry"] for feature in np.take(json.loads(path.read_text())["features"], [1, 3]))
    assert ring["type"] == "Polygon"
    outer, hole = map(shapely.LinearRing, ring["coordinates"])
    assert outer.is_ccw
    assert not hole.is_ccw
    assert parts["type"] == "MultiPolygon"
    assert len(parts["coordinates"]) == 2


def test_a_photo_without_transform_is_named(found, tmp_path):
    for what in (FORMATS["geojson"].check, lambda path, options: FORMATS["geojson"].write(found, tmp_path, options)):
        with pytest.raises(ValueError, match=r"shapes\.png has no transform"):
            what(found.photo.path, Options())


def test_a_world_file_needs_the_name_of_its_coordinate_system(found, placed, tmp_path):
    corner = (UTM[2] + 0.25, UTM[5] - 0.25)  # world files say where the first pixel's centre is
    found.photo.path.with_suffix(".pgw").write_text("\n".join(map(str, (0.5, 0, 0, -0.5, *corner))))
    with pytest.raises(ValueError, match="no coordinate system: name it"):
        FORMATS["geojson"].check(found.photo.path, Options())
    with pytest.raises(ValueError, match="--crs EPSG:nonsense"):
        FORMATS["geojson"].check(found.photo.path, Options(crs="EPSG:nonsense"))
    (world,) = FORMATS["geojson"].write(found, tmp_path, Options(crs="EPSG:32632"))
    (tiff,) = FORMATS["geojson"].write(placed, tmp_path, Options())
    assert json.loads(world.read_text()) == json.loads(tiff.read_text())


def test_a_photo_that_exif_turns_is_refused(placed, tmp_path):
    turned = dataclasses.replace(placed, rgb=np.zeros((120, 80, 3), np.uint8), records=[])
    with pytest.raises(ValueError, match="EXIF orientation"):
        FORMATS["geojson"].write(turned, tmp_path, Options())
