"""The key table of Mask2Former: Hugging Face's names and ours, with the layout of each.

`KeyRule` calls the first name Meta's; here it is ours, with "." for "/". Hugging Face's are those in its files, which
its own classes of version 5 rename when they load a Swin (`to_file_names`).
"""

import re
from collections.abc import Iterable

from .mapping import BATCH_NORM, CONV, EMBEDDING, LINEAR, NORM, RAW, KeyRule, Leaf, rules_of

_IN_PROJ = (Leaf("in_proj_weight", "in_proj/kernel", (1, 0)), Leaf("in_proj_bias", "in_proj/bias"))
_ENCODER, _PIXELS = "model.pixel_level_module.encoder", "model.pixel_level_module.decoder"
_TRANSFORMER = "model.transformer_module"
_FINER = 2  # levels of the feature pyramid that the table has names for; Mask2Former has one

_BLOCK, _SWIN_BLOCK = "backbone.layers.{}.blocks.{}", f"{_ENCODER}.encoder.layers.{{}}.blocks.{{}}"
SWIN: tuple[KeyRule, ...] = (
    *rules_of(CONV, ("backbone.patch_embed.proj", f"{_ENCODER}.embeddings.patch_embeddings.projection")),
    *rules_of(
        NORM,
        ("backbone.patch_embed.norm", f"{_ENCODER}.embeddings.norm"),
        (f"{_BLOCK}.norm1", f"{_SWIN_BLOCK}.layernorm_before"),
        (f"{_BLOCK}.norm2", f"{_SWIN_BLOCK}.layernorm_after"),
        ("backbone.layers.{}.downsample.norm", f"{_ENCODER}.encoder.layers.{{}}.downsample.norm"),
        *((f"backbone.norms.{i}", f"{_ENCODER}.hidden_states_norms.stage{i + 1}") for i in range(4)),
    ),
    *rules_of(
        RAW,
        (
            f"{_BLOCK}.attn.relative_position_bias_table",
            f"{_SWIN_BLOCK}.attention.self.relative_position_bias_table",
        ),
    ),
    *rules_of(
        LINEAR,
        (f"{_BLOCK}.attn.q_proj", f"{_SWIN_BLOCK}.attention.self.query"),
        (f"{_BLOCK}.attn.k_proj", f"{_SWIN_BLOCK}.attention.self.key"),
        (f"{_BLOCK}.attn.v_proj", f"{_SWIN_BLOCK}.attention.self.value"),
        (f"{_BLOCK}.attn.proj", f"{_SWIN_BLOCK}.attention.output.dense"),
        (f"{_BLOCK}.mlp.lin1", f"{_SWIN_BLOCK}.intermediate.dense"),
        (f"{_BLOCK}.mlp.lin2", f"{_SWIN_BLOCK}.output.dense"),
        ("backbone.layers.{}.downsample.reduction", f"{_ENCODER}.encoder.layers.{{}}.downsample.reduction"),
    ),
)

_BOTTLENECK, _RESNET_LAYER = "backbone.stages.{}.layers.{}", f"{_ENCODER}.encoder.stages.{{}}.layers.{{}}"


def _normed_conv(ours: str, huggingface: str) -> list[KeyRule]:
    return [
        *rules_of(CONV, (ours, f"{huggingface}.convolution")),
        *rules_of(BATCH_NORM, (f"{ours}.norm", f"{huggingface}.normalization")),
    ]


RESNET: tuple[KeyRule, ...] = (
    *_normed_conv("backbone.stem", f"{_ENCODER}.embedder.embedder"),
    *_normed_conv(f"{_BOTTLENECK}.shortcut", f"{_RESNET_LAYER}.shortcut"),
    *(rule for i in range(3) for rule in _normed_conv(f"{_BOTTLENECK}.conv{i + 1}", f"{_RESNET_LAYER}.layer.{i}")),
)

_DEFORMABLE, _THEIR_DEFORMABLE = "head.pixel_decoder.layers.{}", f"{_PIXELS}.encoder.layers.{{}}"
_MASKED, _THEIR_MASKED = "head.decoder.layers.{}", f"{_TRANSFORMER}.decoder.layers.{{}}"
HEAD: tuple[KeyRule, ...] = (
    *rules_of(RAW, ("head.pixel_decoder.level_embed", f"{_PIXELS}.level_embed")),
    *rules_of(
        CONV,
        ("head.pixel_decoder.input_proj.{}.conv", f"{_PIXELS}.input_projections.{{}}.0"),
        ("head.pixel_decoder.mask_proj", f"{_PIXELS}.mask_projection"),
        ("head.decoder.input_proj.{}", f"{_TRANSFORMER}.input_projections.{{}}"),
        *((f"head.pixel_decoder.lateral.{i}.conv", f"{_PIXELS}.adapter_{i + 1}.0") for i in range(_FINER)),
        *((f"head.pixel_decoder.smooth.{i}.conv", f"{_PIXELS}.layer_{i + 1}.0") for i in range(_FINER)),
    ),
    *rules_of(
        NORM,
        ("head.pixel_decoder.input_proj.{}.norm", f"{_PIXELS}.input_projections.{{}}.1"),
        *((f"head.pixel_decoder.lateral.{i}.norm", f"{_PIXELS}.adapter_{i + 1}.1") for i in range(_FINER)),
        *((f"head.pixel_decoder.smooth.{i}.norm", f"{_PIXELS}.layer_{i + 1}.1") for i in range(_FINER)),
        (f"{_DEFORMABLE}.norm1", f"{_THEIR_DEFORMABLE}.self_attn_layer_norm"),
        (f"{_DEFORMABLE}.norm2", f"{_THEIR_DEFORMABLE}.final_layer_norm"),
        (f"{_MASKED}.norm1", f"{_THEIR_MASKED}.cross_attn_layer_norm"),
        (f"{_MASKED}.norm2", f"{_THEIR_MASKED}.self_attn_layer_norm"),
        (f"{_MASKED}.norm3", f"{_THEIR_MASKED}.final_layer_norm"),
        ("head.decoder.norm", f"{_TRANSFORMER}.decoder.layernorm"),
    ),
    *rules_of(
        LINEAR,
        *(
            (f"{_DEFORMABLE}.self_attn.{part}", f"{_THEIR_DEFORMABLE}.self_attn.{part}")
            for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
        ),
        *(
            (f"{_MASKED}.self_attn.{part}", f"{_THEIR_MASKED}.self_attn.{part}")
            for part in ("q_proj", "k_proj", "v_proj", "out_proj")
        ),
        (f"{_MASKED}.cross_attn.out_proj", f"{_THEIR_MASKED}.cross_attn.out_proj"),
        *(
            (f"{ours}.mlp.lin{i}", f"{theirs}.fc{i}")
            for ours, theirs in ((_DEFORMABLE, _THEIR_DEFORMABLE), (_MASKED, _THEIR_MASKED))
            for i in (1, 2)
        ),
        ("head.decoder.mask_embed.layers.{}", f"{_TRANSFORMER}.decoder.mask_predictor.mask_embedder.{{}}.0"),
        ("head.decoder.class_embed", "class_predictor"),
    ),
    *rules_of(_IN_PROJ, (f"{_MASKED}.cross_attn", f"{_THEIR_MASKED}.cross_attn")),
    *rules_of(
        EMBEDDING,
        ("head.decoder.query_features", f"{_TRANSFORMER}.queries_features"),
        ("head.decoder.query_positions", f"{_TRANSFORMER}.queries_embedder"),
        ("head.decoder.level_embed", f"{_TRANSFORMER}.level_embed"),
    ),
)

# What a state dict of transformers 5 calls otherwise than its files, within the backbone.
_IN_MEMORY = {
    ".encoder.swin.": ".encoder.",
    ".attention.q_proj.": ".attention.self.query.",
    ".attention.k_proj.": ".attention.self.key.",
    ".attention.v_proj.": ".attention.self.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".attention.relative_position_bias.": ".attention.self.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}
# Of no part of the answer: what the loss and the training of batch norms keep, an index that follows from the window,
# and the norm behind the last stage, whose output no head takes.
_UNUSED = re.compile(r"criterion\.|.*\.(num_batches_tracked|relative_position_index)$|.*\.encoder\.layernorm\.")


def to_file_names(names: Iterable[str]) -> dict[str, str]:
    """The names in files of tensors by any of Hugging Face's names, without those that take no part in the answer."""
    found = {}
    for name in names:
        new = name
        if name.startswith(f"{_ENCODER}."):
            for ours, theirs in _IN_MEMORY.items():
                new = new.replace(ours, theirs)
        if not _UNUSED.match(new):
            found[name] = new
    return found
