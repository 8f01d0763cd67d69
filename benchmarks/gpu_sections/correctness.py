"""Whether answers on this device are right: beside Meta's code on it, to the bars of tests/parity; in bfloat16; and of
a prompt alone beside the same prompt in a ragged batch."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from parity.comparison import CASES, EMBEDDING_BAR, IOU_BAR, LOGITS_BAR, MASK_BAR, relative_error

import samjax
from gpu_sections.jobs import Record, Setting
from gpu_sections.models import config_of, random_params
from gpu_sections.stopwatch import check
from samjax import Prompts, Sam, assets
from samjax.convert import verify

PHOTOS = ("astronaut", "cat")
VARIANT = "vit_b"
ALONE = ("one point", "a mask and a box")  # of different programs: without and with a mask prompt
ALONE_BAR = 1e-5  # float32 sums over another number of masked terms (tests/test_sam.py)
HALF_BAR = 0.99  # share of pixels on which bfloat16 and float32 agree
WEIGHTS, ANSWERS = "reference.pth", "reference.npz"  # what Meta's side leaves for ours


def of_meta(setting: Setting) -> Iterator[Record]:
    """Meta's answers to every case on every photo, in float32 without TF32."""
    import torch
    from parity.reference import build_reference, import_segment_anything

    from gpu_sections import torch_device

    torch_device.multiply_exactly()
    segment_anything = import_segment_anything()
    if setting.checkpoint is None:
        model = build_reference(config_of(setting, VARIANT))
        torch.save(model.state_dict(), setting.scratch / WEIGHTS)
    else:
        model = verify.load_reference(setting.checkpoint)
    predictor = segment_anything.SamPredictor(model.to(torch_device.device()))
    answers: dict[str, Any] = {}
    for photo, rgb in _photos(setting).items():
        predictor.set_image(rgb)
        answers[f"{photo}/features"] = predictor.features[0].permute(1, 2, 0).cpu().numpy()
        for multimask in (True, False):
            for case, arguments in _arguments(rgb, model.prompt_encoder.mask_input_size).items():
                masks, iou, logits = predictor.predict(**arguments, multimask_output=multimask)
                for name, array in (("masks", masks), ("iou", iou), ("logits", logits)):
                    answers[f"{photo}/{multimask}/{case}/{name}"] = array
    np.savez(setting.scratch / ANSWERS, **answers)
    yield {"kind": "note", "what": f"{len(CASES)} prompts on {len(_photos(setting))} photo(s) answered by Meta's code"}


class Answers(NamedTuple):
    """What samjax makes of a photo."""

    embedding: Any
    half_embedding: Any  # computed in bfloat16
    together: dict[bool, Any]  # by `multimask`: predictions for all cases in one ragged batch
    half: Any  # three masks in bfloat16
    alone: list[Any]  # three masks for each of the cases that are also asked alone


def of_samjax(setting: Setting) -> Iterator[Record]:
    """Compares; where Meta's answers are missing, what can be compared without them."""
    beside_meta = (setting.scratch / ANSWERS).exists()
    if setting.checkpoint is not None:
        sam = samjax.load(setting.checkpoint)
    elif beside_meta:
        sam = samjax.load(setting.scratch / WEIGHTS)
    else:
        config = config_of(setting, VARIANT)
        sam = Sam(config, random_params(config))
    answers = {photo: _answer(sam, rgb, ALONE if photo == PHOTOS[0] else ()) for photo, rgb in _photos(setting).items()}
    if beside_meta:
        with np.load(setting.scratch / ANSWERS) as theirs:
            yield from _compare(sam, answers, theirs)

    of_first = answers[PHOTOS[0]]
    rows = [list(CASES).index(case) for case in ALONE]
    errors = [
        relative_error(of_first.together[True].logits[row], alone.logits[0])
        for row, alone in zip(rows, of_first.alone, strict=True)
    ]
    yield check("mask logits of a prompt alone and in a ragged batch, relative error", np.max(errors), ALONE_BAR)
    half = sam.with_dtype("bfloat16")
    agreements = [
        sam.masks(of_photo.together[True], of_photo.embedding) == half.masks(of_photo.half, of_photo.half_embedding)
        for of_photo in answers.values()
    ]
    by_prompt = np.concatenate([agreement.mean((1, 2, 3)) for agreement in agreements])
    worst = float(by_prompt.min())
    what = "mask pixels on which bfloat16 and float32 agree"
    yield check(what, by_prompt.mean(), HALF_BAR, at_least=True, worst_prompt=worst)


def _answer(sam: Sam, rgb: np.ndarray, alone: Sequence[str]) -> Answers:
    def exactly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
        def call() -> Any:
            with jax.default_matmul_precision("highest"):  # a setting of the thread
                return function(*args, **kwargs)

        return call

    half, cases = sam.with_dtype("bfloat16"), _arguments(rgb, sam.config.mask_size)
    ragged = _prompts(list(cases.values()))
    embedding, half_embedding = _at_once(exactly(sam.encode, rgb), lambda: half.encode(rgb))
    three, one, in_half, *each = _at_once(
        exactly(sam.predict, embedding, ragged, multimask=True),
        exactly(sam.predict, embedding, ragged, multimask=False),
        lambda: half.predict(half_embedding, ragged, multimask=True),
        *(exactly(sam.predict, embedding, _prompts([cases[case]]), multimask=True) for case in alone),
    )
    return Answers(embedding, half_embedding, {True: three, False: one}, in_half, each)


def _compare(sam: Sam, answers: dict[str, Answers], theirs: Any) -> Iterator[Record]:
    """The worst over photos and cases of how far samjax is from Meta's answers."""
    embeddings, logits, ious, masks = [], [], [], []
    for photo, ours in answers.items():
        embeddings.append(relative_error(ours.embedding.features, theirs[f"{photo}/features"]))
        for multimask, predictions in ours.together.items():
            drawn = sam.masks(predictions, ours.embedding)
            expected = {
                name: [theirs[f"{photo}/{multimask}/{case}/{name}"] for case in CASES]
                for name in ("logits", "iou", "masks")
            }
            for row in range(len(CASES)):
                logits.append(relative_error(predictions.logits[row], expected["logits"][row]))
                masks.append((drawn[row] == expected["masks"][row]).mean())
            # Of all prompts together: random weights predict single IoUs that are almost 0.
            ious.append(relative_error(predictions.iou, expected["iou"]))
    yield check("image embedding, relative error", np.max(embeddings), EMBEDDING_BAR)
    yield check("mask logits, relative error", np.max(logits), LOGITS_BAR)
    yield check("predicted IoU, relative error", np.max(ious), IOU_BAR)
    yield check("mask pixels that agree", np.min(masks), MASK_BAR, at_least=True)


def _photos(setting: Setting) -> dict[str, np.ndarray]:
    if setting.tiny:
        return {PHOTOS[0]: np.ascontiguousarray(samjax.read_image(assets.photo(PHOTOS[0]))[::6, ::6])}
    return {name: samjax.read_image(assets.photo(name)) for name in PHOTOS}


def _arguments(rgb: np.ndarray, mask_size: tuple[int, int]) -> dict[str, dict[str, Any]]:
    return {name: case.arguments(rgb.shape[:2], mask_size) for name, case in CASES.items()}


def _prompts(rows: Sequence[dict[str, Any]]) -> Prompts:
    """One for each row of arguments of the reference's predictor."""
    names = {"point_coords": "points", "point_labels": "labels", "box": "boxes", "mask_input": "masks"}
    columns = {ours: [row[theirs] for row in rows] for theirs, ours in names.items()}
    return Prompts.of(**{name: column for name, column in columns.items() if any(x is not None for x in column)})


def _at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Results of calls that run beside each other, because most of their time is compiling."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: call(), calls))
