"""Mask2Former's head (arXiv 2112.01527): features of several strides to classes and masks of all objects."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from samjax.nn.heads.config import Mask2FormerHeadConfig
from samjax.nn.heads.masked_decoder import Instances, MaskedDecoder
from samjax.nn.heads.pixel_decoder import PixelDecoder
from samjax.nn.layers import Layer


class Mask2FormerHead(Layer):
    """Pixel decoder and masked decoder."""

    config: Mask2FormerHeadConfig
    inputs: tuple[int, ...]  # channels of the features, finest first
    dtype: jnp.dtype

    def setup(self) -> None:
        self.pixel_decoder = PixelDecoder(self.config.pixel_decoder, self.inputs, self.dtype)
        self.decoder = MaskedDecoder(self.config, self.dtype)

    def __call__(self, features: tuple[Float[Array, "_ _ _"], ...]) -> tuple[Instances, ...]:
        """Answers of the queries of an image, before the decoder's first layer and after each.

        `features` are finest first; masks have the finest one's grid.
        """
        return self.decoder(*self.pixel_decoder(features))
