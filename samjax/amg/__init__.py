"""Segment everything: masks of all objects in a photo."""

from samjax.amg.generator import SamAutomaticMaskGenerator
from samjax.amg.labels import label_map

__all__ = ["SamAutomaticMaskGenerator", "label_map"]
