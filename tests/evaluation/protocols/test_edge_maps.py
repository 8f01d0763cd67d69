"""Edge maps of shapes whose outlines are known."""

import numpy as np
import pytest
from skimage.segmentation import find_boundaries

from samjax.evaluation.protocols.edge_maps import add_mask, normals, outer_boundary, suppress, thinned

Y, X = np.mgrid[:70, :90].astype(np.float32)


def disc(y: float, x: float, radius: float, softness: float = 1.0) -> np.ndarray:
    """Probabilities that fall off over a few pixels around a circle."""
    return 1 / (1 + np.exp((np.hypot(Y - y, X - x) - radius) / np.float32(softness)))


def edge_map(masks) -> np.ndarray:
    strongest = np.zeros(masks[0].shape, np.float32)
    for mask in masks:
        add_mask(strongest, mask)
    return thinned(strongest)


def test_the_outer_boundary_is_that_of_scikit_image():
    random = np.random.default_rng(0)
    mask = random.random((30, 40)) < 0.3
    assert np.array_equal(
        outer_boundary(mask), find_boundaries(mask, connectivity=1, mode="outer", background=0) & ~mask
    )


def test_edges_lie_on_the_circle_and_go_all_around_it():
    edges = edge_map([disc(35, 45, 20)])
    assert edges.dtype == np.float32
    assert edges.max() == 1
    y, x = np.nonzero(edges)
    radius = np.hypot(y - 35, x - 45)
    assert ((radius >= 20) & (radius < 21.5)).all()
    angles = np.sort(np.arctan2(y - 35, x - 45))
    assert np.diff(angles).max() < 2.5 / 20


def test_pixels_off_the_boundary_of_their_own_mask_have_no_edge():
    # The probability also rises from 0 to 0.4 on the right, which is no mask.
    probability = np.maximum(disc(35, 30, 15), np.where(X > 70, np.float32(0.4), 0)).astype(np.float32)
    edges = edge_map([probability])
    assert edges[:, :50].any()
    assert not edges[:, 60:].any()


def test_of_two_masks_the_sharper_one_decides_and_scaling_is_common():
    sharp, soft = disc(35, 25, 14), disc(35, 65, 14, softness=4.0)
    edges = edge_map([sharp, soft, soft * 0.1])
    assert edges[:, :45].max() == 1
    slopes = [np.hypot(*np.gradient(mask)).max() for mask in (soft, sharp)]
    assert edges[:, 45:].max() == pytest.approx(slopes[0] / slopes[1], rel=0.25)


def test_the_order_of_masks_does_not_matter():
    masks = [disc(35, 40, 14), disc(35, 46, 14, softness=3.0), disc(30, 40, 20, softness=2.0)]
    assert np.array_equal(edge_map(masks), edge_map(masks[::-1]))


def test_masks_without_pixels_give_no_edges():
    assert not edge_map([np.full((20, 30), 0.2, np.float32)]).any()


@pytest.mark.parametrize("degrees", [0, 15, 30, 45, 60, 75, 90, 105, 120, 135, 150, 165])
def test_the_normal_of_a_straight_edge(degrees):
    angle = np.deg2rad(degrees)
    ridge = np.exp(-(((X - 45) * np.cos(angle) + (Y - 35) * np.sin(angle)) ** 2) / 8).astype(np.float32)
    error = (np.rad2deg(normals(ridge)[35, 45]) - degrees + 90) % 180 - 90
    assert abs(error) < 12  # what the published formula has between axes and diagonals


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 135])
def test_suppression_leaves_the_crest_of_a_ridge(degrees):
    angle = np.deg2rad(degrees)
    across = (X - 45) * np.cos(angle) + (Y - 35) * np.sin(angle)
    ridge = np.where(abs(across) < 6, np.exp(-(across**2) / 8), 0).astype(np.float32)
    thinned = suppress(ridge, frame=0)
    inside = (abs(X - 45) < 25) & (abs(Y - 35) < 25)
    assert thinned[inside & (thinned > 0)].min() > 0.75
    assert (abs(across)[inside & (thinned > 0)] <= 1).all()
    assert (thinned[inside] == ridge[inside]).sum() >= 45  # the crest has a pixel in every row or column


def test_a_ridge_that_is_nearly_as_strong_as_its_neighbour_stays():
    edges = np.zeros((40, 40), np.float32)
    edges[:, 20], edges[:, 21] = 1.0, 0.995
    assert suppress(edges, frame=0)[10:30, 21] == pytest.approx(0.995)
    edges[:, 21] = 0.98
    assert not suppress(edges, frame=0)[10:30, 21].any()


def test_edges_fade_towards_the_border():
    edges = np.zeros((40, 40), np.float32)
    edges[20] = 1
    thinned = suppress(edges)
    assert thinned[20, :7] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1])
    assert thinned[20, -7:] == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2, 0])
