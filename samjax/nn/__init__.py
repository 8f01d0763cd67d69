"""Thin Flax Linen modules: they hold parameters under Meta's names and call `samjax.ops`.

Every module works on ONE image and ONE prompt; `samjax.model` maps it over batches, so that how many run at a time is
policy and not part of the model. Names are Meta's, `image_encoder/blocks/0/attn/qkv/kernel`, so that the key table of
`samjax.convert` is short and checkable; kernels are stored input-first, as Flax has them.

One letter, one meaning: H W the rows and columns of the grid of patches, S = H W image tokens row by row, h w pixels or
cells of a mask, T tokens, M masks, C channels, D channels of a head, *B any leading axes. Results are in the compute
dtype, unless the annotation or the docstring says float32. "The reference" is Meta's `segment_anything`.

Linen stays behind the scenes: its `apply` is a pure function of a nested dict, which is what jit, shardings, orbax and
key mapping want, and none of its types is in the public API.
"""
