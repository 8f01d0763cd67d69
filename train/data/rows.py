"""The rows of all batches as one long sequence with random access.

A row is a record and what chance makes of it. It depends on the seed and on its POSITION, its place in the run's order
of photos, and on nothing else: not on which process, thread or worker makes it, nor on the rows before it.
"""

from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

from samjax.config import SamConfig
from samjax.readers.record import BadRecord, Source

from ..config import DataConfig
from .example import Example, UsableSource, augmented_example, empty_example, plain_example
from .report import BadRecords

POSITIONS = 2**32  # `Batch.position` has 32 bits

# Kinds of random draws, which must not repeat each other's.
_ORDER, _AUGMENTATION, _VALIDATION, _VIEW = range(4)

ExampleFields = dict[str, Any]  # the fields of `Batch`, without its leading axis


@runtime_checkable
class Rows(Protocol):
    """A sequence of rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> ExampleFields: ...


class TrainingRows:
    """Endless: epoch after epoch, each in another order, every record once an epoch.

    A bad record is replaced by the next good one of the source, a photo without objects by one that is drawn
    (`BadRecords.load_good`). With `views` a record has so many augmentations, which epochs take in turn; which of its
    masks are used is another draw each time. With `clicks` rows have the first recorded clicks of masks.
    """

    def __init__(
        self,
        source: Source,
        model: SamConfig,
        config: DataConfig,
        report: BadRecords,
        seed: int,
        views: int = 0,
        *,
        clicks: bool = False,
    ) -> None:
        self.source, self.model, self.config = UsableSource(source, model, config), model, config
        self.report, self.seed, self.views, self.clicks = report, seed, views, clicks
        shuffle = int(np.random.SeedSequence((seed, _ORDER)).generate_state(1)[0])
        self.order = grain.MapDataset.range(len(source)).shuffle(seed=shuffle).repeat()

    def __len__(self) -> int:
        return POSITIONS

    def __getitem__(self, position: int) -> ExampleFields:
        return self.at(position, position)

    def at(self, place: int, position: int) -> ExampleFields:
        """The row whose record is the one at `place` in the order, and whose chance is that of `position`."""
        random = np.random.default_rng((self.seed, _AUGMENTATION, position))
        index, record = self.report.load_good(self.source, int(self.order[place]), random)
        view, choice = random, None
        if self.views:
            number = place // len(self.source) % self.views
            view, choice = np.random.default_rng((self.seed, _VIEW, index, number)), random
        example = augmented_example(record, self.model, self.config, view, choice, clicks=self.clicks)
        return _row(example, position, index)


class ValidationRows:
    """The first `count` records in the order of the source, unaugmented.

    One that is bad or without objects is a row without valid masks.

    Which masks are used depends on the record alone, so runs with different seeds are measured by the same ones.
    """

    def __init__(self, source: Source, model: SamConfig, config: DataConfig, report: BadRecords, count: int) -> None:
        self.source, self.model, self.config = UsableSource(source, model, config), model, config
        self.report, self.count = report, min(count, len(source))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> ExampleFields:
        """Beyond the last record rows only pad: their record is -1."""
        if position >= self.count:
            return _row(empty_example(self.model, self.config), position, -1)
        random = np.random.default_rng((_VALIDATION, position))
        try:
            record = self.report.load(self.source, position)
        except BadRecord:
            return _row(empty_example(self.model, self.config), position, position)
        return _row(plain_example(record, self.model, self.config, random), position, position)


class LocalRows:
    """The rows that one of several processes loads: of each batch a block, in the order of processes."""

    def __init__(self, rows: Rows, batch: int, process_index: int, process_count: int) -> None:
        self.rows, self.batch = rows, batch
        self.share = batch // process_count
        self.first = process_index * self.share
        self.steps = -(-len(rows) // batch)

    def __len__(self) -> int:
        return self.steps * self.share

    def __getitem__(self, index: int) -> ExampleFields:
        step, row = divmod(int(index), self.share)
        return self.rows[step * self.batch + self.first + row]


def _row(example: Example, position: int, record: int) -> ExampleFields:
    fields = {name: value for name, value in vars(example).items() if value is not None}
    return {**fields, "position": np.array(position, np.uint32), "record": np.array(record, np.int32)}
