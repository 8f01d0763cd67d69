"""Options that several sub-commands share."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

Dtype = Annotated[
    Literal["float32", "bfloat16"],
    arg(help="Dtype to compute in. bfloat16 needs less memory, and less time where the device multiplies in it."),
]
ImageSize = Annotated[
    tuple[int, int] | None,
    arg(metavar="H W", help="Model input size, multiples of the patch size; the checkpoint's by default."),
]
Checkpoint = Annotated[
    str, arg(metavar="C", help="A known name (samjax-tiny, vit_b, vit_l, vit_h), a file or a folder.")
]
TunedFile = Annotated[
    Path | None,
    arg(metavar="FILE", help="What was tuned of the checkpoint, as `samjax export RUN FILE --tuned` writes it."),
]
