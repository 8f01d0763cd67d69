"""Heads that find and name objects without prompts, on the features of any encoder or backbone.

As everywhere in `samjax.nn`, modules work on ONE image. One letter, one meaning: Q queries, K classes with "no object"
as the last, S the cells of all levels (coarsest first, each row by row), H W a level's rows and columns, h w those of
the mask features and of mask logits. Names of parameters are our own; `samjax.convert.mask2former` has Hugging Face's.
Norms are layer norms and group norms, so nothing depends on the other photos of a batch.
"""
