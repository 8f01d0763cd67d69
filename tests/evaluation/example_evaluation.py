"""An evaluation in small: a data set, a segmenter and a protocol of a few lines, whose answers are known."""

import json
import time
from collections.abc import Sequence

import numpy as np

from samjax.evaluation.protocol import Curve, Figure, Judgement, Object, Sample, Segmenter, Summary
from samjax.ops.rle import encode_rle


class Squares:
    """Photo number i is plain grey of value i with a square of side 4 + i; the photos in `bad` cannot be read."""

    def __init__(self, count: int, bad: Sequence[int] = ()) -> None:
        self.count, self.bad = count, bad
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"photo{index:03}"

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        if index in self.bad:
            raise OSError(f"photo{index:03}.jpg is cut off")
        mask = np.zeros((40, 50), bool)
        mask[3 : 7 + index, 5 : 9 + index] = True
        return Sample(self.name(index), np.full((40, 50, 3), index, np.uint8), (Object(encode_rle(mask), 1),))


class Silent:
    """A segmenter that nobody asks."""

    def __init__(self, images_together: int = 1) -> None:
        self.images_together = images_together

    def look(self, photos):
        raise NotImplementedError

    def ask(self, prompts, *, multimask):
        raise NotImplementedError

    def upscale(self, photo, logits):
        raise NotImplementedError

    full_logits = upscale


class Grey:
    """Finds out how bright photos are; cannot judge those of the values in `bad`."""

    name = "grey"
    asks = True

    def __init__(self, bad: Sequence[int] = (), factor: float = 1.0, seconds: float = 0.0) -> None:
        self.bad, self.factor, self.seconds = bad, factor, seconds
        self.judged: list[list[str]] = []

    def settings(self) -> dict:
        return {"factor": self.factor}

    def judge(self, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        time.sleep(self.seconds)
        values = [int(sample.rgb.mean()) for sample in samples]
        if set(values) & set(self.bad):
            raise RuntimeError("too grey")
        self.judged.append([sample.name for sample in samples])
        return [
            {"grey": np.float32(self.factor * value), "name": s.name} for s, value in zip(samples, values, strict=True)
        ]

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        greys = [record["grey"] for record in records]
        curve = Curve("grey", range(1, len(greys) + 1), (np.cumsum(greys) / 1000).tolist())
        metrics = {"mean": float(np.mean(greys)), "last": greys[-1], "photos": len(records), "undefined": float("nan")}
        return Summary(metrics, (Figure("grey", "photos", "sum", (curve,)),))


def metrics(out) -> dict:
    """Of results that lie in a folder."""
    return json.loads((out / "results.json").read_text())["metrics"]
