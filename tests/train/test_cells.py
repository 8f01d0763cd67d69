"""Packed masks on the device: the same sets as in numpy, and sampling from them is fair."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

RATIOS = [1, 2, 3, 4, 5]
GRID = 3, 4


def random_masks(ratio, count=6, share=0.3):
    height, width = GRID
    masks = np.random.RandomState(ratio).rand(count, height * ratio, width * ratio) < share
    masks[0], masks[1] = False, True
    masks[2] = False
    masks[2, -1, 0] = True  # a single pixel
    return masks


def packed(masks, ratio):
    from samjax.train.batch import pack_cells

    return jnp.asarray(pack_cells(masks, ratio))


@functools.cache
def many_pixels(ratio, count):
    """Samples of pixels, each with its own key."""
    from samjax.train.cells import sample_pixel

    def sample(key, cells):
        return jax.vmap(lambda key: sample_pixel(key, cells, ratio))(jax.random.split(key, count))

    return jax.jit(sample)


@pytest.mark.parametrize("ratio", RATIOS)
def test_cells_unpack_to_the_masks_that_were_packed(ratio):
    from samjax.train.batch import unpack_cells

    masks = random_masks(ratio)
    cells = packed(masks, ratio)
    on_device, on_host = unpack_cells(cells, ratio), unpack_cells(np.asarray(cells), ratio)
    assert isinstance(on_device, jax.Array)
    assert isinstance(on_host, np.ndarray)
    np.testing.assert_array_equal(on_device, masks)
    np.testing.assert_array_equal(on_host, masks)


@pytest.mark.parametrize("ratio", RATIOS)
def test_counts_are_the_pixels_under_each_logit(ratio):
    from samjax.train import cells

    masks = random_masks(ratio)
    expected = masks.reshape(len(masks), GRID[0], ratio, GRID[1], ratio).sum((2, 4))
    np.testing.assert_array_equal(cells.counts(packed(masks, ratio)), expected)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_photo_is_what_its_size_says(ratio):
    from samjax.train import batch, cells

    height, width = GRID[0] * ratio, GRID[1] * ratio
    for size in ((height, width), (height, 1), (1, width), (height - 1, max(width - ratio - 1, 1))):
        size = max(size[0], 1), size[1]
        inside = np.zeros((height, width), bool)
        inside[: size[0], : size[1]] = True
        photo = cells.photo(jnp.array(size), GRID, ratio, batch.cell_dtype(ratio))
        np.testing.assert_array_equal(batch.unpack_cells(photo, ratio), inside)


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_box_goes_from_the_first_to_the_last_pixel(ratio):
    from samjax.train import cells

    masks = random_masks(ratio, count=30, share=0.03)
    for mask, ours in zip(masks, jax.vmap(lambda x: cells.box(x, ratio))(packed(masks, ratio)), strict=True):
        y, x = np.nonzero(mask)
        expected = (x.min(), y.min(), x.max(), y.max()) if len(x) else (0, 0, 0, 0)
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("ratio", RATIOS)
def test_every_pixel_of_a_set_is_drawn_with_the_same_probability(ratio):
    mask = random_masks(ratio)[4]
    mask[: 2 * ratio, : 2 * ratio] |= True  # whole cells beside part-filled ones
    each = 60
    points, found = many_pixels(ratio, each * int(mask.sum()))(jax.random.key(1), packed(mask, ratio))
    assert found.all()
    x, y = np.asarray(points).astype(int).T
    np.testing.assert_array_equal(points, np.stack([x, y], 1))  # pixels have whole coordinates
    drawn = np.zeros(mask.shape, int)
    np.add.at(drawn, (y, x), 1)
    assert (drawn[~mask] == 0).all()
    assert chisquare(drawn[mask]).pvalue > 1e-3
    assert abs(drawn[mask] - each).max() < 6 * each**0.5


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_only_pixel_is_found_and_in_an_empty_set_there_is_none(ratio):
    empty, _, single, *_ = random_masks(ratio)
    points, found = many_pixels(ratio, 20)(jax.random.key(0), packed(single, ratio))
    assert found.all()
    np.testing.assert_array_equal(points, np.tile([0, GRID[0] * ratio - 1], (20, 1)))
    _, found = many_pixels(ratio, 20)(jax.random.key(0), packed(empty, ratio))
    assert not found.any()


def test_sets_are_drawn_from_side_by_side_as_one_by_one():
    from samjax.train.cells import sample_pixel

    cells = packed(random_masks(4), 4)
    keys = jax.random.split(jax.random.key(3), len(cells))
    draw = functools.partial(sample_pixel, ratio=4)
    together, found = jax.vmap(draw)(keys, cells)
    for i, (key, one) in enumerate(zip(keys, cells, strict=True)):
        alone, alone_found = draw(key, one)
        np.testing.assert_array_equal(together[i], alone)
        assert found[i] == alone_found


@pytest.mark.parametrize("ratio", RATIOS)
def test_logits_become_masks_where_they_are_positive_once_upsampled_bilinearly(ratio):
    from samjax.train import batch, cells

    height, width = GRID
    logits = np.random.RandomState(ratio).standard_normal((2, height, width)).astype(np.float32)

    def along(values, side):  # align_corners=False
        return np.interp(np.clip((np.arange(side * ratio) + 0.5) / ratio - 0.5, 0, side - 1), np.arange(side), values)

    expected = np.stack([np.apply_along_axis(along, 0, mask, height) for mask in logits])
    expected = np.stack([np.apply_along_axis(along, 1, mask, width) for mask in expected])
    np.testing.assert_allclose(cells.upsample(jnp.asarray(logits), ratio), expected, atol=1e-5)
    inside = np.zeros((height * ratio, width * ratio), bool)
    inside[: height * ratio - 1] = True
    found = cells.from_logits(jnp.asarray(logits), packed(inside, ratio), ratio)
    np.testing.assert_array_equal(batch.unpack_cells(found, ratio), (expected > 0) & inside)


@pytest.mark.parametrize("ratio", RATIOS)
def test_iou_is_that_of_the_pixels(ratio):
    from samjax.train import cells

    masks = random_masks(ratio)
    target = masks[-1]
    both, either = (masks & target).sum((1, 2)), (masks | target).sum((1, 2))
    np.testing.assert_allclose(cells.iou(packed(masks, ratio), packed(target, ratio)), both / either, rtol=1e-6)
    empty = packed(np.zeros_like(target), ratio)
    assert cells.iou(empty, empty) == 0


@pytest.mark.parametrize(("radius", "at_least"), [(8, 0.9), (16, 0.95)])
def test_a_disc_that_the_logits_know_is_a_good_mask(radius, at_least):
    # At low resolution, cells that are part foreground would cost it a fifth of its IoU (radius 8).
    from samjax.train import cells

    y, x = np.mgrid[:128, :128]
    distance = radius - np.hypot(x - 63.2, y - 61.7)
    logits = jnp.asarray(distance.reshape(32, 4, 32, 4).mean((1, 3)), jnp.float32)
    found = cells.from_logits(logits, packed(np.ones((128, 128), bool), 4), 4)
    assert cells.iou(found, packed(distance > 0, 4)) > at_least
