"""Statistics over records of the form {"objects": [{"id", "category", "area", ...}], ...}, one a photo."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from samjax.evaluation.protocol import Judgement, Sample, Segmenter

Entry = dict[str, Any]  # of one object
# COCO's: areas in pixels, from and below.
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}


def only_with_objects(judge: Callable[..., list[Judgement]]) -> Callable[..., list[Judgement]]:
    """Decorates a protocol's `judge`: the model does not look at photos without objects, whose records say so."""

    @functools.wraps(judge)
    def judged(protocol: Any, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        some = [sample for sample in samples if sample.objects]
        records = iter(judge(protocol, segmenter, some) if some else [])
        return [next(records) if sample.objects else {"objects": []} for sample in samples]

    return judged


def objects_of(records: Sequence[Judgement]) -> list[Entry]:
    """The objects of all photos. Raises ValueError if there is none."""
    entries = [entry for record in records for entry in record["objects"]]
    if not entries:
        raise ValueError(
            f"{len(records)} photo(s) have no object to be judged; does --min-area leave any, and are there "
            "annotations for these photos?"
        )
    return entries


def by_size(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Objects by COCO's sizes, without those that there are none of."""
    sizes = {size: [entry for entry in entries if low <= entry["area"] < high] for size, (low, high) in SIZES.items()}
    return {size: inside for size, inside in sizes.items() if inside}


def mean(entries: Sequence[Entry], value: Callable[[Entry], float | int]) -> float:
    """Over objects; every object counts the same."""
    return float(np.mean([value(entry) for entry in entries], dtype=np.float64))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's, of pairs; None if it is undefined: for fewer than two pairs, or where one side is constant."""
    from scipy.stats import spearmanr

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(spearmanr(first, second).statistic)
