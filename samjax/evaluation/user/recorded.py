"""The user whose clicks were recorded with the data, in place of a simulated one."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from samjax.evaluation.metrics.object_records import Entry, objects_of
from samjax.evaluation.protocol import Judgement, Sample, Segmenter

User = Literal["simulated", "recorded"]
USERS: tuple[User, ...] = ("simulated", "recorded")
WITHOUT = "without_clicks"  # of a photo's record: how many of its objects were not made by clicks alone


def check_user(user: str) -> None:
    """Raises ValueError for a user that there is not."""
    if user not in USERS:
        raise ValueError(f"the user is {' or '.join(USERS)}, got {user!r}")


def only_with_clicks(judge: Callable[..., list[Judgement]]) -> Callable[..., list[Judgement]]:
    """Decorates the `judge` of a protocol with a `user`: if that is the recorded one, objects without recorded clicks
    are left out, and counted in the photos' records."""

    @functools.wraps(judge)
    def judged(protocol: Any, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        if protocol.user != "recorded":
            return judge(protocol, segmenter, samples)
        clicked = [
            dataclasses.replace(sample, objects=tuple(found for found in sample.objects if found.clicks))
            for sample in samples
        ]
        records = judge(protocol, segmenter, clicked)
        return [
            {**record, WITHOUT: len(sample.objects) - len(left.objects)}
            for record, sample, left in zip(records, samples, clicked, strict=True)
        ]

    return judged


def clicked_objects(records: Sequence[Judgement]) -> tuple[list[Entry], int]:
    """The objects of all photos, and the number of those left out. Raises ValueError if none has been judged."""
    without = sum(record[WITHOUT] for record in records)
    if without and not any(record["objects"] for record in records):
        raise ValueError(
            f"no object with recorded clicks is there to be judged; {without} object(s) of {len(records)} photo(s) "
            "have none, or were made with boxes or masks too. Sources such as work=FOLDER keep clicks; the simulated "
            "user needs none"
        )
    return objects_of(records), without
