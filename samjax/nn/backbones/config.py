"""Configurations of backbones, with the published defaults."""

import dataclasses
from typing import Protocol, runtime_checkable


@runtime_checkable
class BackboneConfig(Protocol):
    """What the configuration of a backbone promises: a frozen dataclass that says what comes out."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the features at strides 4, 8, 16 and 32."""
        ...


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """A residual network of bottlenecks (arXiv 1512.03385): by default ResNet-50, with its stride in the 3x3."""

    stem: int = 64  # channels behind the first convolution
    widths: tuple[int, ...] = (256, 512, 1024, 2048)  # channels of the stages
    depths: tuple[int, ...] = (3, 4, 6, 3)  # bottlenecks of the stages

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or min(self.stem, *self.widths, *self.depths) < 1:
            raise ValueError(f"a ResNet has a width and a depth for each stage, all positive, got {self}")
        if any(width % REDUCTION for width in self.widths):
            raise ValueError(f"a ResNet's widths must be multiples of {REDUCTION}, got {self.widths}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the stages."""
        return self.widths


REDUCTION = 4  # a bottleneck's width over its inner one


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """A Swin transformer (arXiv 2103.14030): by default Swin-T."""

    width: int = 96  # channels of the first stage; each next one has twice as many
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of the stages
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7  # cells
    patch: int = 4  # pixels
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        sizes = (self.width, *self.depths, *self.heads, self.window, self.patch, self.mlp_ratio)
        if len(self.depths) != len(self.heads) or min(sizes) < 1:
            raise ValueError(f"a Swin has a depth and heads for each stage, all sizes positive, got {self}")
        if any(width % heads for width, heads in zip(self.channels, self.heads, strict=True)):
            raise ValueError(f"a Swin's widths {self.channels} must be multiples of its heads {self.heads}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the stages."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))
