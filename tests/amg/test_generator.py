"""What `SamAutomaticMaskGenerator` promises, with a small network that segments discs and boxes of plain colours."""

import jax
import numpy as np
import pytest
from example_generation import OPTIONS, PHOTO
from example_models import SHAPES, shapes_photo

from samjax import Execution, Sam, SamAutomaticMaskGenerator
from samjax.amg.config import GenerationConfig
from samjax.amg.generator import MaskGenerator
from samjax.amg.labels import label_map
from samjax.amg.program import jitted_choose, jitted_decode, jitted_judge, jitted_pack
from samjax.ops.rle import rle_iou
from samjax.transforms import PIXEL_MEAN

PROGRAMS = (jitted_judge, jitted_choose, jitted_decode, jitted_pack)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


def best(records: list[dict], mask: np.ndarray) -> float:
    return max((iou(record["segmentation"], mask) for record in records), default=0.0)


def test_a_shape_is_found_with_its_box_area_and_point(shapes):
    photo, masks = shapes_photo(128, 128, seed=11, count=1)
    records = SamAutomaticMaskGenerator(shapes, **OPTIONS).generate(photo)
    found = max(records, key=lambda record: iou(record["segmentation"], masks[0]))
    mask = found["segmentation"]
    assert iou(mask, masks[0]) > 0.9
    assert found["area"] == mask.sum()
    y, x = np.nonzero(mask)
    assert found["bbox"] == [x.min(), y.min(), np.ptp(x), np.ptp(y)]
    (point,) = found["point_coords"]
    assert masks[0][int(point[1]), int(point[0])]
    assert found["crop_box"] == [0, 0, 128, 128]
    assert 0.7 < found["predicted_iou"] < 1.2
    assert 0.7 <= found["stability_score"] <= 1


@pytest.mark.parametrize("options", [{"points_per_batch": 5}, {"points_per_batch": 1000}, {"memory_budget": 2**32}])
def test_how_many_points_are_decoded_together_changes_nothing(shapes, options):
    alone = SamAutomaticMaskGenerator(shapes, **OPTIONS, output_mode="coco_rle").generate(PHOTO)
    assert SamAutomaticMaskGenerator(shapes, **OPTIONS, output_mode="coco_rle", **options).generate(PHOTO) == alone


@pytest.mark.parametrize("options", [{}, {"nms": "mask"}, {"crop_n_layers": 1}])
def test_accelerators_way_of_running_finds_the_same(shapes, options):
    together = Sam(shapes.config, shapes.params, Execution.for_backend("gpu"))
    one, many = (
        SamAutomaticMaskGenerator(sam, **OPTIONS, output_mode="coco_rle", **options).generate(PHOTO)
        for sam in (shapes, together)
    )
    assert len(one) == len(many)
    for a, b in zip(one, many, strict=True):
        assert rle_iou([a["segmentation"]], [b["segmentation"]]) > 0.99
        assert a["point_coords"] == b["point_coords"]


@pytest.mark.parametrize("options", [{}, {"nms": "mask", "crop_n_layers": 1}, {"tile": 64}])
def test_pauses_change_nothing_and_tell_what_is_done(shapes, options):
    photo, _ = shapes_photo(100, 120, 3)
    config = GenerationConfig(points_per_side=7, points_per_batch=16, pred_iou_thresh=0.5, **options)
    shares = []
    found = MaskGenerator(shapes, config).generate(photo, progress=shares.append)
    assert found
    assert found == MaskGenerator(shapes, config).generate(photo)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 3


def test_a_search_ends_where_its_progress_raises(shapes):
    shares = []

    def stop(share: float) -> None:
        shares.append(share)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        MaskGenerator(shapes, GenerationConfig(points_per_side=8, points_per_batch=16)).generate(
            shapes_photo(100, 120, 3)[0], progress=stop
        )
    assert shares == [0.25]


def test_photos_of_similar_size_share_a_program(shapes):
    generator = SamAutomaticMaskGenerator(shapes, **OPTIONS)
    generator.generate(shapes_photo(100, 128, seed=1)[0])
    compiled = [program._cache_size() for program in PROGRAMS]
    for size in ((101, 128), (110, 128), (127, 128)):
        generator.generate(shapes_photo(*size, seed=2)[0])
    assert [program._cache_size() for program in PROGRAMS] == compiled


def test_programs_tell_which_photos_are_compiled_for_together(shapes):
    generator = SamAutomaticMaskGenerator(shapes, **OPTIONS)
    assert generator.programs((100, 128)) == generator.programs((127, 120))
    assert generator.programs((100, 128)) != generator.programs((900, 1200))
    with_crops = SamAutomaticMaskGenerator(shapes, **OPTIONS, crop_n_layers=1)
    assert generator.programs((900, 2000)) < with_crops.programs((900, 2000))


def test_nothing_in_the_picture_is_an_empty_list(shapes):
    records = SamAutomaticMaskGenerator(shapes, points_per_side=3, pred_iou_thresh=5.0).generate(
        np.full((90, 128, 3), 120, np.uint8)
    )
    assert records == []


def test_filters_do_what_their_names_say(shapes):
    def found(**options):
        return SamAutomaticMaskGenerator(shapes, **{**OPTIONS, "box_nms_thresh": 1.0, **options}).generate(PHOTO)

    everything = found(pred_iou_thresh=0.0, stability_score_thresh=0.0)
    assert len(everything) == 3 * 12 * 12
    assert [record["predicted_iou"] for record in everything] == sorted(
        (record["predicted_iou"] for record in everything), reverse=True
    )
    sure = found(pred_iou_thresh=0.9, stability_score_thresh=0.0)
    assert len(sure) == sum(record["predicted_iou"] > np.float32(0.9) for record in everything)
    stable = found(pred_iou_thresh=0.0, stability_score_thresh=0.9)
    assert len(stable) == sum(record["stability_score"] >= np.float32(0.9) for record in everything)


def test_masks_cut_off_by_a_crop_are_dropped(shapes):
    photo, _ = shapes_photo(260, 260, seed=3, count=20)
    records = SamAutomaticMaskGenerator(shapes, **OPTIONS, crop_n_layers=1, point_grids=None).generate(photo)
    crops = {tuple(record["crop_box"]) for record in records}
    assert len(crops) > 2
    for record in records:
        box, crop = ((x, y, x + w, y + h) for x, y, w, h in (record["bbox"], record["crop_box"]))
        box, crop = np.array(box), np.array(crop)
        near_crop, near_photo = abs(box - crop) <= 20, abs(box - (0, 0, 260, 260)) <= 20
        assert not (near_crop & ~near_photo).any()


def test_mask_nms_leaves_no_nested_and_no_overlapping_masks(shapes):
    photo, _ = shapes_photo(128, 128, seed=21, count=6)
    loose = {**OPTIONS, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.4, "output_mode": "binary_mask"}
    by_box = SamAutomaticMaskGenerator(shapes, **loose).generate(photo)
    by_mask = SamAutomaticMaskGenerator(shapes, **loose, nms="mask").generate(photo)

    def worst(records):
        pairs = [(a["segmentation"], b["segmentation"]) for i, a in enumerate(records) for b in records[:i]]
        return max((a & b).sum() / min(a.sum(), b.sum()) for a, b in pairs)

    assert worst(by_box) > 0.95
    assert worst(by_mask) <= 0.9
    assert len(by_mask) > 2


def test_of_nested_masks_the_better_one_stays_whatever_crop_it_is_from(shapes):
    photo, _ = shapes_photo(200, 200, seed=21, count=9)
    options = {**OPTIONS, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.4, "crop_n_layers": 1, "nms": "mask"}
    nested = SamAutomaticMaskGenerator(shapes, **options, containment_thresh=1.0).generate(photo)
    flat = SamAutomaticMaskGenerator(shapes, **options).generate(photo)

    def key(record: dict) -> tuple:
        return record["predicted_iou"], *record["bbox"], *record["point_coords"][0]

    kept = {key(record) for record in flat}
    dropped = [record for record in nested if key(record) not in kept]
    assert dropped
    for record in dropped:
        mask = record["segmentation"]
        better = [r["segmentation"] for r in flat if r["predicted_iou"] >= record["predicted_iou"]]
        assert any((mask & other).sum() > 0.9 * min(mask.sum(), other.sum()) for other in better)


def test_a_label_map_numbers_the_records(shapes):
    generator = SamAutomaticMaskGenerator(shapes, **OPTIONS)
    labels = generator.generate(PHOTO, label_map=True)
    assert labels.shape == PHOTO.shape[:2]
    np.testing.assert_array_equal(labels, label_map(generator.generate(PHOTO), PHOTO.shape[:2]))
    assert labels.max() > 0


TILES = {**OPTIONS, "tile": 128, "overlap": 64, "points_per_side": 16}


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, list[np.ndarray]]:
    """A photo larger than the model's input, and its shapes."""
    return shapes_photo(300, 420, seed=31, count=14)


@pytest.fixture(scope="module")
def records(shapes, scene) -> list[dict]:
    return SamAutomaticMaskGenerator(shapes, **TILES).generate(scene[0])


class TestTiles:
    def test_small_objects_of_a_large_photo_are_found(self, shapes, scene, records):
        photo, masks = scene
        whole = SamAutomaticMaskGenerator(shapes, **OPTIONS).generate(photo)
        tiled = np.array([best(records, mask) for mask in masks])
        assert (tiled > 0.8).mean() > 0.6
        assert (tiled > 0.8).sum() > sum(best(whole, mask) > 0.8 for mask in masks)

    def test_points_crops_and_masks_lie_within_the_photo(self, scene, records):
        height, width = scene[0].shape[:2]
        for record in records:
            assert record["segmentation"].shape == (height, width)
            x, y, w, h = record["crop_box"]
            assert x >= 0
            assert y >= 0
            assert x + w <= width
            assert y + h <= height

    def test_an_object_across_a_seam_is_one_mask(self, shapes):
        y, x = np.mgrid[:128, :232]
        disc = (y - 60) ** 2 + (x - 116) ** 2 < 23**2
        photo = np.where(disc[:, :, None], np.uint8([220, 60, 40]), np.uint8([90, 120, 150]))
        records = SamAutomaticMaskGenerator(shapes, **{**TILES, "overlap": 24}).generate(photo)
        found = max(records, key=lambda record: iou(record["segmentation"], disc))
        assert iou(found["segmentation"], disc) > 0.85
        assert found["crop_box"] == [0, 0, 232, 128]

    @pytest.mark.parametrize("margin", [(0, 64), (77, 200), (1, 0)], ids=str)
    def test_what_is_found_does_not_depend_on_the_photos_extent(self, shapes, scene, records, margin):
        # Grey in the colour that stands for nothing; the tiles and what they show stay what they were.
        below, right = margin
        grey = np.rint(PIXEL_MEAN).astype(np.uint8)
        padded = np.tile(grey, (300 + below, 420 + right, 1))
        padded[:300, :420] = scene[0]
        found = SamAutomaticMaskGenerator(shapes, **TILES).generate(padded)
        masks = [{"segmentation": record["segmentation"][:300, :420]} for record in found]
        away = [r for r in records if r["bbox"][0] + r["bbox"][2] < 400 and r["bbox"][1] + r["bbox"][3] < 280]
        assert len(away) > 5
        agreement = np.array([best(masks, record["segmentation"]) for record in away])
        assert (agreement > 0.9).mean() > 0.9

    def test_an_object_moved_by_whole_tiles_is_the_same_mask(self, shapes, scene):
        # Padding at the top and on the left by the step of the tiles moves the lattice onto itself.
        photo = scene[0][:256, :256]
        padded = np.pad(photo, ((64, 0), (64, 0), (0, 0)))
        generator = MaskGenerator(shapes, GenerationConfig(**TILES))
        before, after = generator.candidates(photo), generator.candidates(padded)
        inside = [box for box in before.boxes.tolist() if min(box[:2]) > 70 and max(box[2:]) < 250]
        moved = {tuple(np.array(box) + 64) for box in inside}
        assert len(inside) > 1
        assert len(moved & {tuple(box) for box in after.boxes.tolist()}) >= 0.8 * len(moved)


def test_a_photo_between_the_points_of_a_tile_has_nothing(shapes):
    generator = SamAutomaticMaskGenerator(shapes, points_per_side=2, tile=64)
    assert generator.generate(np.zeros((10, 10, 3), np.uint8)) == []
    assert generator.explain((10, 10)).working > 0


def test_a_photo_of_any_kind_is_taken(shapes):
    grey = shapes_photo(70, 50, seed=1)[0][:, :, 0]
    generator = SamAutomaticMaskGenerator(shapes, **OPTIONS)
    assert len(generator.generate(grey)) == len(generator.generate(np.repeat(grey[:, :, None], 3, 2)))
    assert isinstance(generator.generate(np.zeros((1, 1, 3), np.uint8)), list)


def test_bfloat16_finds_much_the_same(shapes):
    exact, rough = (
        SamAutomaticMaskGenerator(sam, **OPTIONS).generate(PHOTO) for sam in (shapes, shapes.with_dtype("bfloat16"))
    )
    agreement = [best(rough, record["segmentation"]) for record in exact]
    assert np.median(agreement) > 0.95


def test_the_network_of_these_tests_has_the_shapes_configuration(shapes):
    assert shapes.config == SHAPES
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(shapes.params))
