"""For protocols that judge what is there already."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from jaxtyping import Float32, UInt8

from samjax.evaluation.protocol import Prompt


class Unasked:
    """A `Segmenter` that nobody asks anything."""

    images_together = 1

    def look(self, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> NoReturn:
        raise _asked()

    def ask(self, prompts: Sequence[Sequence[Prompt]], *, multimask: bool) -> NoReturn:
        raise _asked()

    def full_logits(self, photo: int, logits: Float32[np.ndarray, "M h w"]) -> NoReturn:
        raise _asked()


def _asked() -> TypeError:
    return TypeError("this protocol asks a model; give it a segmenter, not Unasked")
