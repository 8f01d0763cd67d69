"""Configurations of heads, with the published defaults."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PixelDecoderConfig:
    """Mask2Former's pixel decoder (arXiv 2112.01527, section 3.2.2 and its released configurations)."""

    width: int = 256  # channels of what it works on
    mask_width: int = 256  # channels of the mask features
    depth: int = 6  # layers of deformable attention
    levels: int = 3  # the coarsest ones, which the layers work on; finer ones are added afterwards
    heads: int = 8
    points: int = 4  # that a head looks at in each level
    mlp_dim: int = 1024
    groups: int = 32  # of its group norms

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self)) < 1:
            raise ValueError(f"all sizes of the pixel decoder must be positive, got {self}")
        if self.width % self.heads or self.width % self.groups or self.width % 4:
            raise ValueError(
                f"the pixel decoder's width {self.width} must be a multiple of 4, of its {self.heads} heads and of the "
                f"{self.groups} groups of its norms"
            )


@dataclasses.dataclass(frozen=True)
class MaskedDecoderConfig:
    """Mask2Former's transformer decoder (section 3.2.1)."""

    width: int = 256  # channels of queries
    depth: int = 9  # layers; they take the levels in turn
    heads: int = 8
    mlp_dim: int = 2048
    queries: int = 100
    projects_levels: bool = False  # a 1x1 convolution of each level first, also where the channels are the queries'

    def __post_init__(self) -> None:
        if min(value for value in dataclasses.astuple(self) if not isinstance(value, bool)) < 1:
            raise ValueError(f"all sizes of the decoder must be positive, got {self}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"the decoder's width {self.width} must be a multiple of 4 and of its {self.heads} heads")


@dataclasses.dataclass(frozen=True)
class Mask2FormerHeadConfig:
    """Everything behind the backbone."""

    classes: int  # without "no object", which the head adds as the last one
    pixel_decoder: PixelDecoderConfig = PixelDecoderConfig()
    decoder: MaskedDecoderConfig = MaskedDecoderConfig()

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ValueError(f"a head names objects of at least one class, got {self.classes}")
