"""Programs are compiled ahead of time, so that nothing is left to compile for a photo."""

import dataclasses
import re

import numpy as np
from example_compiling import compiled_programs
from example_models import random_photo

from samjax import Prompts, Sam, SamPredictor
from samjax.ops.attention import Blocked


def fresh(sam: Sam, attention_rows: int) -> Sam:
    """The same model for which nothing is compiled yet, if no other test has these rows."""
    how = dataclasses.replace(sam.execution, attention=Blocked(rows=attention_rows))
    return dataclasses.replace(sam, execution=how)


def names(model: Sam, **options) -> list[str]:
    """Of the programs, in order."""
    return [timing.program for timing in model.warmup(**options)]


def test_warmup_leaves_nothing_to_compile(sam):
    model = fresh(sam, 3)

    def use():
        predictor = SamPredictor(model)
        predictor.set_image(random_photo(70, 350))  # no other test has photos that wide
        predictor.predict(np.array([[1, 2]] * 4), np.ones(4, int))
        predictor.predict_batch([[[1, 2]]] * 3, [[1]] * 3)

    def warm():
        timings = model.warmup(points=(1, 5), prompts=(1, 3), photo_sizes=[(70, 350)])
        assert [timing.program.split()[0] for timing in timings] == ["encode"] + ["decode"] * 8 + ["upscale"]
        assert all(timing.run_seconds > 0 for timing in timings)

    assert {"encode", "decode", "_upscale"} <= set(compiled_programs(warm))
    assert compiled_programs(use) == []


def test_prompts_with_a_mask_are_compiled_if_they_are_asked_for(sam):
    model = fresh(sam, 5)
    model.warmup(multimask=[False], mask_prompts=True)
    embedding = model.encode(random_photo(60, 90))
    prompts = Prompts.of([[[1, 2]]], masks=[np.zeros(model.config.mask_size)])
    assert compiled_programs(lambda: model.predict(embedding, prompts, multimask=False)) == []


def test_every_program_has_a_name_that_says_what_it_is_for(sam):
    assert names(sam) == [
        "encode",
        "decode 1 prompt(s) of up to 3 tokens, three masks",
        "decode 1 prompt(s) of up to 3 tokens, one mask",
    ]
    assert names(sam, mask_prompts=True, multimask=[True], photo_sizes=[(60, 90), (90, 60)]) == [
        "encode",
        "decode 1 prompt(s) of up to 3 tokens, three masks",
        "decode 1 prompt(s) of up to 3 tokens and a mask, three masks",
        "upscale to 60 x 90",
        "upscale to 90 x 60",
    ]


def test_numbers_that_share_a_bucket_share_a_program(sam):
    assert names(sam, points=(1, 2), prompts=(3, 4), multimask=[True]) == names(sam, prompts=[4], multimask=[True])
    tokens = names(sam, points=(3, 2), multimask=[True])[1:]
    assert [re.search(r"\d+ tokens", name)[0] for name in tokens] == ["3 tokens", "6 tokens"]
