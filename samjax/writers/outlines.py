"""Masks as polygons, in pixels of the photo with pixel (0, 0) covering [0, 1] x [0, 1].

An outline runs half-way between the centres of foreground and background pixels (marching squares), so it cuts the
corners of pixels and leaves their centres on the right side: rasterised by centres it is the mask again.
"""

from typing import Any

import contourpy
import numpy as np
import shapely
from jaxtyping import Float

from samjax.ops.rle import decode_within_box

# Of the tolerance, what simplifying may use. At the usual tolerance of 0.5 it stays below 1/sqrt(5) = 0.447 pixels, the
# deviation from which on the steps of a slanted outline are taken for noise, always on the same side.
USED = 0.8
KEPT_AREA = 0.75  # a part that simplifying would shrink or grow by more than a quarter stays as it is


def outline(rle: dict[str, Any], tolerance: float) -> list[shapely.Polygon]:
    """The parts of a mask with their holes, simplified by up to `tolerance` pixels; none for an empty mask.

    Parts touch and cross neither each other nor themselves. Small and thin ones are not simplified away.
    """
    part, (x0, y0) = decode_within_box(rle)
    if not part.size:
        return []
    mask = np.pad(part, 1)
    contours = contourpy.contour_generator(z=mask.astype(np.uint8), fill_type=contourpy.FillType.OuterOffset)
    corner = np.array([x0 - 0.5, y0 - 0.5])  # the padded mask's first centre is half a pixel outside its box
    parts = []
    for points, offsets in zip(*contours.filled(0.5, np.inf), strict=True):
        shell, *holes = np.split(points + corner, offsets[1:-1])
        parts.append(shapely.Polygon(shell, holes))
    return _simplified(parts, tolerance) if tolerance > 0 else parts


def _simplified(parts: list[shapely.Polygon], tolerance: float) -> list[shapely.Polygon]:
    together = shapely.simplify(shapely.MultiPolygon(parts), USED * tolerance, preserve_topology=True)
    simple = list(shapely.get_parts(together))
    if len(simple) != len(parts):
        return parts
    ratio = shapely.area(simple) / shapely.area(parts)
    faithful = (ratio > KEPT_AREA) & (ratio < 1 / KEPT_AREA)
    mixed = [new if fine else old for new, old, fine in zip(simple, parts, faithful, strict=True)]
    return mixed if shapely.MultiPolygon(mixed).is_valid else parts


def bridged(polygon: shapely.Polygon) -> Float[np.ndarray, "V 2"]:
    """One ring (not closed: the first point is not repeated) for formats that know no holes.

    Each hole is joined to the ring by the shortest way there and back, which has no area and crosses nothing: holes
    are joined nearest first.
    """
    ring = np.asarray(polygon.exterior.coords)[:-1]
    holes = list(polygon.interiors)
    bridges = [shapely.shortest_line(hole, polygon.exterior) for hole in holes]
    while holes:
        nearest = int(np.argmin(shapely.length(bridges)))
        hole, bridge = holes.pop(nearest), np.asarray(bridges.pop(nearest).coords)
        ring = _joined(ring, np.asarray(hole.coords)[:-1], bridge)
        for i, (other, known) in enumerate(zip(holes, bridges, strict=True)):
            new = shapely.shortest_line(other, hole)
            bridges[i] = min(known, new, key=shapely.length)
    return ring


def _joined(
    ring: Float[np.ndarray, "V 2"], hole: Float[np.ndarray, "K 2"], bridge: Float[np.ndarray, "2 2"]
) -> Float[np.ndarray, "N 2"]:
    """The ring that leaves for the hole where the bridge (from the hole to the ring) ends, and comes back there."""
    start, end = bridge
    at_hole, at_ring = _edge_with(hole, start), _edge_with(ring, end)
    around = np.concatenate([[start], np.roll(hole, -at_hole - 1, axis=0), [start]])
    return _without_repeats(np.concatenate([ring[: at_ring + 1], [end], around, [end], ring[at_ring + 1 :]]))


def _edge_with(ring: Float[np.ndarray, "V 2"], point: Float[np.ndarray, "2"]) -> int:
    """The number of the edge, from vertex i to i + 1, that a point lies on."""
    along = np.roll(ring, -1, axis=0) - ring
    share = ((point - ring) * along).sum(1) / np.maximum((along**2).sum(1), 1e-12)
    nearest = ring + along * share.clip(0, 1)[:, None]
    return int(np.argmin(((nearest - point) ** 2).sum(1)))


def _without_repeats(ring: Float[np.ndarray, "V 2"]) -> Float[np.ndarray, "U 2"]:
    return ring[(ring != np.roll(ring, 1, axis=0)).any(1)]


def flat(ring: Float[np.ndarray, "V 2"], scale: tuple[float, float] = (1.0, 1.0), digits: int = 2) -> list[float]:
    """[x, y, x, y, ...], each multiplied by the scale of its axis and rounded."""
    return np.round(ring * scale, digits).ravel().tolist()
