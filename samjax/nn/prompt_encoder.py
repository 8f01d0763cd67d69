"""The prompt encoder: points, box corners and masks to tokens and a dense map (SAM paper, Appendix A).

The reference has it in modeling/prompt_encoder.py.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32

from samjax.config import PromptLabel, SamConfig
from samjax.nn.initialise import NORMAL, declare
from samjax.nn.layers import Dense, Layer, LayerNorm, LearnedVectors, ModuleList, gelu
from samjax.ops import positions


class FourierPositions(Layer):
    """The random matrix of the Fourier features; a buffer in the reference, never trained.

    The reference's `PositionEmbeddingRandom`.
    """

    features: int  # C: as many cosines as sines

    def setup(self) -> None:
        self.matrix = self.param("positional_encoding_gaussian_matrix", declare(NORMAL), (2, self.features // 2))

    def __call__(self, unit: Float32[Array, "*B 2"]) -> Float32[Array, "*B C"]:
        """Features of (x, y) in [0, 1], fractions of the padded model input's (width, height)."""
        return positions.fourier_features(unit, jax.lax.stop_gradient(self.matrix))

    def over(self, rows: Float32[Array, " H"], columns: Float32[Array, " W"]) -> Float32[Array, "H W C"]:
        """Features of a grid of cells with centres at these fractions of the padded model input's height and width."""
        return positions.grid_fourier_features(rows, columns, jax.lax.stop_gradient(self.matrix))


class PromptEncoder(Layer):
    """Prompts of one mask to float32 tokens; a mask prompt to a dense map: the reference's `PromptEncoder`."""

    config: SamConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        width, channels = self.config.width, self.config.mask_channels
        self.pe_layer = FourierPositions(width)
        self.point_embeddings = ModuleList(
            lambda i: LearnedVectors(1, width),
            (PromptLabel.BACKGROUND, PromptLabel.FOREGROUND, PromptLabel.BOX_MIN, PromptLabel.BOX_MAX),
        )
        self.not_a_point_embed = LearnedVectors(1, width)
        self.no_mask_embed = LearnedVectors(1, width)
        downscaling = {
            0: lambda: Dense(1, channels // 4, self.dtype, patch=2),
            1: lambda: LayerNorm(channels // 4, epsilon=1e-6),
            3: lambda: Dense(channels // 4, channels, self.dtype, patch=2),
            4: lambda: LayerNorm(channels, epsilon=1e-6),
            6: lambda: Dense(channels, width, self.dtype, patch=1),
        }
        self.mask_downscaling = ModuleList(lambda i: downscaling[i](), tuple(downscaling))

    def tokens(
        self, points: Float32[Array, "T 2"], labels: Int[Array, " T"], origin: Int32[Array, "2"] | None = None
    ) -> Float32[Array, "T C"]:
        """Tokens of points and box corners.

        Args:
            points: (x, y) in pixels of the padded model input, or with `origin` of a window of it; integers name
                pixels, whose centres are at .5.
            labels: `PromptLabel`. A token that is not a point, or absent, has no position: its point does not count.
            origin: (x, y) of the window's upper left corner, in pixels of the padded model input; None: no window.
        """
        height, width = self.config.image_size
        if origin is not None:
            points = points + origin.astype(points.dtype)[None]
        # Integer coordinates name pixels; their centres are at .5.
        position = self.pe_layer((points + 0.5) / jnp.array([[width, height]], jnp.float32))
        position = jnp.where((labels >= 0)[:, None], position, 0)
        kinds = [self.point_embeddings[i]() for i in range(4)]
        # Rows 0..3 are the four kinds of points; -1 and -2 count from the end.
        table = jnp.concatenate([*kinds, jnp.zeros_like(kinds[0]), self.not_a_point_embed()])
        return position + table[labels]

    def dense(self, mask: Float[Array, "h w"]) -> Float[Array, "H W C"]:
        """The dense map of a mask prompt, one vector per cell of the grid.

        `mask` has logits at four times the grid, over the padded model input or a window of it.
        """
        x = gelu(self.mask_downscaling[1](self.mask_downscaling[0](mask[:, :, None])))
        x = gelu(self.mask_downscaling[4](self.mask_downscaling[3](x)))
        return self.mask_downscaling[6](x)

    def no_mask(self) -> Float[Array, " C"]:
        """The vector that replaces `dense` in every cell if there is no mask prompt."""
        return self.no_mask_embed()[0].astype(self.dtype)

    def grid_positions(
        self, grid: tuple[int, int] | None = None, origin: Int32[Array, "2"] | None = None
    ) -> Float32[Array, "H W C"]:
        """Fourier features of the centre of every cell of the image embedding, or of a window of it.

        Args:
            grid: (rows, columns) of the window; None: `config.grid`.
            origin: (x, y) of the window's upper left corner, in pixels of the padded model input; None: (0, 0).
        """
        (height, width), whole = grid or self.config.grid, self.config.grid
        rows, columns = (jnp.arange(side, dtype=jnp.float32) + 0.5 for side in (height, width))
        if origin is not None:
            x, y = origin.astype(jnp.float32) / self.config.image_encoder.stride
            rows, columns = rows + y, columns + x
        return self.pe_layer.over(rows / whole[0], columns / whole[1])
