"""An edge map of a photo from the masks of everything in it, as Kirillov et al. 2023 make one (appendix D.2)."""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from samjax.ops.masks import outermost

SUPPRESSION_RADIUS = 1  # pixels along the gradient; this and the next two are Dollar's values for BSDS500
SUPPRESSION_MARGIN = 1.01  # an edge stays if it is no weaker than 1 / 1.01 of its neighbours
FRAME = 5  # pixels along the photo's border where edges fade out
ORIENTATION_RADIUS = 4  # pixels of smoothing before orientation is measured


def outer_boundary(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The background pixels above, below, left or right of which is foreground."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask) & ~mask


def add_mask(strongest: Float32[np.ndarray, "H W"], probability: Float32[np.ndarray, "H W"]) -> None:
    """Raises `strongest` to a mask's edges, in place: its gradient (Sobel) where its outer boundary is.

    `probability` is of foreground, the sigmoid of the mask's logits. Over all masks of a photo `strongest`, zeros at
    first, becomes the largest at each pixel.
    """
    from scipy.ndimage import sobel

    # Nothing happens further from the mask than its boundary, and Sobel's filter sees one pixel more.
    mask = probability > 0.5
    box = outermost(mask)
    if box is None:
        return
    x0, y0, x1, y1 = box
    window = slice(max(0, y0 - 2), y1 + 3), slice(max(0, x0 - 2), x1 + 3)
    part = probability[window]
    gradient = np.hypot(sobel(part, 0, mode="nearest"), sobel(part, 1, mode="nearest"))
    edges = np.where(outer_boundary(mask[window]), gradient, 0)
    np.maximum(strongest[window], edges, out=strongest[window])


def thinned(strongest: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """The edge map between 0 and 1 of all masks' edges: the strongest is 1, what is no ridge is suppressed."""
    peak = float(strongest.max())
    return suppress(strongest / np.float32(peak)) if peak > 0 else strongest


def suppress(
    edges: Float32[np.ndarray, "H W"],
    *,
    radius: int = SUPPRESSION_RADIUS,
    margin: float = SUPPRESSION_MARGIN,
    frame: int = FRAME,
) -> Float32[np.ndarray, "H W"]:
    """An edge map whose pixels are 0 unless they are the strongest across their edge.

    Compared at `radius` pixels to both sides along the normal, interpolated; edges fade to 0 over `frame` pixels at the
    border. As in Dollar and Zitnick, "Fast edge detection using structured forests" (`edgesNms`), whose published use
    the defaults are.
    """
    from scipy.ndimage import map_coordinates

    y, x = np.nonzero(edges)
    angle = normals(edges)[y, x]
    height, width = edges.shape
    strength = edges[y, x].astype(np.float64) * margin
    kept = np.ones(len(y), bool)
    for distance in range(-radius, radius + 1):
        if distance:
            place = (
                (y + distance * np.sin(angle)).clip(0, height - 1),
                (x + distance * np.cos(angle)).clip(0, width - 1),
            )
            kept &= strength >= map_coordinates(edges, place, np.float64, order=1, mode="nearest")
    thinned = np.zeros_like(edges)
    thinned[y[kept], x[kept]] = edges[y[kept], x[kept]]
    frame = min(frame, height // 2, width // 2)
    if frame:
        for axis, side in enumerate(edges.shape):
            to_border = np.minimum(np.arange(side), np.arange(side)[::-1])
            fade = np.minimum(to_border / frame, 1).astype(np.float32)
            thinned *= np.expand_dims(fade, 1 - axis)
    return thinned


def normals(edges: Float[np.ndarray, "H W"]) -> Float64[np.ndarray, "H W"]:
    """The direction across the edge at each pixel, radians between 0 and pi from x towards y.

    From the second derivatives of the map smoothed with a triangle of radius 4. As published, off by up to 11 degrees
    between the axes and the diagonals.
    """
    from scipy.ndimage import correlate1d

    rising = np.arange(1, ORIENTATION_RADIUS + 2, dtype=np.float64)
    triangle = np.concatenate([rising, rising[-2::-1]]) / (ORIENTATION_RADIUS + 1) ** 2
    smooth = edges.astype(np.float64)
    for axis in (0, 1):
        smooth = correlate1d(smooth, triangle, axis, mode="reflect")
    dy, dx = np.gradient(smooth)
    dxx = np.gradient(dx, axis=1)
    dyy, dxy = np.gradient(dy)
    sign = np.where(dxy > 0, -1, 1)  # the original's has 0 for exactly horizontal edges, whose normal then is wrong
    return np.arctan(dyy * sign / (dxx + 1e-5)) % np.pi
