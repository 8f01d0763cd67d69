"""Measures of agreement of two masks. Masks are bool; all leading axes are batches; results are float64."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from samjax.ops.masks import outermost

BOUNDARY_DILATION = 0.02  # width of the band along a mask's boundary, as a share of the photo's diagonal
BETA_SQUARED = 0.3  # the weight of precision that salient object detection has agreed on

Mask = Bool[np.ndarray, "*B H W"]
Areas = Int[np.ndarray, "*B"] | np.integer | int
Scores = Float64[np.ndarray, "*B"] | np.float64


def iou(first: Mask, second: Mask) -> Scores:
    """Intersection over union; 1 where both masks are empty."""
    return _share((first & second).sum((-2, -1)), (first | second).sum((-2, -1)))


def dice(first: Mask, second: Mask) -> Scores:
    """Twice the intersection over the sum of the areas; 1 where both masks are empty."""
    areas = first.sum((-2, -1)) + second.sum((-2, -1))
    return _share(2 * (first & second).sum((-2, -1)), areas)


def boundary_iou(first: Mask, second: Mask, *, dilation: float = BOUNDARY_DILATION) -> Scores:
    """IoU of the two masks' inner bands along their boundaries (Cheng et al. 2021, "Boundary IoU").

    See `inner_band`. 1 where both masks are empty.
    """
    return iou(inner_band(first, dilation=dilation), inner_band(second, dilation=dilation))


def inner_band(mask: Mask, *, dilation: float = BOUNDARY_DILATION) -> Mask:
    """The mask's pixels no more than d steps, diagonal ones too, from a pixel outside it; beyond the photo is outside.

    d is `dilation` times the photo's diagonal, rounded, and at least 1: what the official code's d erosions with a
    3 x 3 square take away.
    """
    from scipy.ndimage import distance_transform_cdt

    steps = max(1, round(dilation * float(np.hypot(*mask.shape[-2:]))))
    flat = mask.reshape(-1, *mask.shape[-2:])
    band = np.zeros_like(flat)
    for one, target in zip(flat, band, strict=True):
        if (found := outermost(one)) is not None:
            x0, y0, x1, y1 = found
            box = slice(y0, y1 + 1), slice(x0, x1 + 1)
            depth = distance_transform_cdt(np.pad(one[box], 1), metric="chessboard")[1:-1, 1:-1]
            target[box] = one[box] & (depth <= steps)
    return band.reshape(mask.shape)


def f_beta(predicted: Mask, truth: Mask, *, beta_squared: float = BETA_SQUARED) -> Scores:
    """(1 + beta²) precision recall / (beta² precision + recall); 1 where both masks are empty.

    0.3 for beta² weighs precision more than recall (Achanta et al. 2009).
    """
    areas = ((predicted & truth).sum((-2, -1)), predicted.sum((-2, -1)), truth.sum((-2, -1)))
    return f_beta_of_areas(*areas, beta_squared=beta_squared)


def f_beta_of_areas(both: Areas, predicted: Areas, truth: Areas, *, beta_squared: float = BETA_SQUARED) -> Scores:
    """`f_beta` of masks of these areas, which share `both` pixels."""
    # The same as of precision and recall, without dividing by areas that may be 0.
    return _share((1 + beta_squared) * both, beta_squared * truth + predicted)


def mean_absolute_error(saliency: Float[np.ndarray, "*B H W"] | Mask, truth: Mask) -> Scores:
    """Mean over pixels of the difference between a saliency map in [0, 1], or a mask, and the true mask.

    Raises ValueError for a map outside [0, 1].
    """
    if saliency.size and not (saliency.min() >= 0 and saliency.max() <= 1):  # false for NaN too
        raise ValueError(
            f"a saliency map must lie in [0, 1], got {saliency.min():g} to {saliency.max():g}; scale it first"
        )
    return np.abs(saliency.astype(np.float64) - truth).mean((-2, -1))


def _share(part: Any, whole: Any) -> Scores:
    return np.where(whole > 0, part / np.maximum(whole, 1e-300), 1.0)[()]
