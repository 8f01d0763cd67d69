"""The key table is a bijection between three naming conventions."""

import pytest
from example_configs import BEYOND_HUGGING_FACE, CUSTOM
from flax.traverse_util import flatten_dict

from samjax import VARIANTS
from samjax.convert.mapping import find_entries
from samjax.model import abstract_params


@pytest.mark.parametrize("config", [*VARIANTS.values(), *CUSTOM.values()], ids=[*VARIANTS, *CUSTOM])
def test_the_key_table_is_a_bijection(config):
    ours = set(flatten_dict(abstract_params(config), sep="/"))
    depth = config.mask_decoder.iou_head_depth
    table = find_entries(ours, source="ours", iou_head_depth=depth)
    assert set(table) == ours
    for source in ("meta", "huggingface", "ours"):
        known = [entry for entry in table.values() if getattr(entry, source) is not None]
        names = {getattr(entry, source): entry for entry in known}
        assert len(names) == len(known)
        assert len(known) == len(ours) or (source == "huggingface" and config in BEYOND_HUGGING_FACE)
        assert find_entries(names, source=source, iou_head_depth=depth) == names


def test_names_that_resemble_the_table_are_not_in_it():
    for name in (
        "image_encoder.blocks.{}.norm1.weight",
        "image_encoder.blocks.norm1.weight",
        "image_encoder.blocks.0.norm1.weight.extra",
        "image_encoder.blocks.0.norm3.weight",
        "image_encoder.neck.4.weight",
        "image_encoder/pos_embed",
        "",
    ):
        assert find_entries([name], source="meta") == {}
