"""Outlines of objects in the bundled photos, drawn by hand, and how well a mask fits them."""

import numpy as np
from PIL import Image, ImageDraw

# Photo, then corners (x, y) in its pixels.
OUTLINES = {
    "head": (
        "astronaut",
        """230,16 258,21 275,31 288,42 296,58 301,85 296,103 284,125 272,136 267,138 262,155 257,165 254,185 240,190
        225,188 197,184 188,178 186,160 183,140 181,131 175,128 171,118 157,103 154,85 153,68 158,57 173,44 190,36
        200,26 213,19""",
    ),
    "face": (
        "astronaut",
        """186,80 215,80 250,84 268,90 270,110 268,138 262,155 257,165 254,185 240,190 225,188 197,184 188,178 186,160
        183,140 181,115 183,95""",
    ),
    "left_eye": (
        "cat",
        """134,107 136,97 143,90 152,86 167,85 182,88 194,93 203,101 209,110 213,122 213,135 203,142 192,146 180,148
        168,146 156,141 147,134 140,125 136,116""",
    ),
    "right_iris": (
        "cat",
        """296,140 297,130 301,121 309,115 319,111 330,110 338,115 340,125 339,135 334,147 326,156 315,160 306,159
        299,154 296,148""",
    ),
    "rocket": (
        "rocket",
        "323,128 328,131 332,138 334,145 334,170 331,178 331,407 313,407 313,180 311,170 311,145 313,138 318,131",
    ),
}


def drawn(name: str) -> np.ndarray:
    """The mask of an outline, boolean (H, W) at the size of its photo."""
    from samjax import assets

    photo, outline = OUTLINES[name]
    with Image.open(assets.photo(photo)) as picture:
        mask = Image.new("1", picture.size)
    ImageDraw.Draw(mask).polygon([tuple(map(int, corner.split(","))) for corner in outline.split()], fill=1)
    return np.array(mask)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()
