"""Thin Flax Linen modules: they hold parameters under Meta's names and call `samjax.ops`.

Every module works on ONE image and ONE prompt; `samjax.model` maps it over batches, so that how many run at a time is
policy and not part of the model.
"""
