"""Old data between the new: a share of the rows that holds in every stretch of a run, so that a model rehearses what it
could do before."""

import dataclasses
import fractions

from samjax.readers.record import Record, Source

from .report import BadRecords
from .rows import POSITIONS, ExampleFields, TrainingRows


@dataclasses.dataclass(frozen=True)
class OldData:
    """The source that is mixed in, and the report of what cannot be used of it."""

    source: Source
    report: BadRecords


class MixedSource:
    """Two sources behind one index: the new records, then the old ones, whose names begin with "mix/"."""

    def __init__(self, new: Source, old: Source) -> None:
        self.new, self.old = new, old

    def __len__(self) -> int:
        return len(self.new) + len(self.old)

    def name(self, index: int) -> str:
        """The name of a record, without reading it."""
        beyond = index - len(self.new)
        return self.new.name(index) if beyond < 0 else f"mix/{self.old.name(beyond)}"

    def __getitem__(self, index: int) -> Record:
        """Reads a record. Raises what its source does."""
        beyond = index - len(self.new)
        if beyond < 0:
            return self.new[index]
        record = self.old[beyond]
        return dataclasses.replace(record, name=f"mix/{record.name}")


class MixedRows:
    """Rows of two sources, spread evenly: of any n in a row, n times the share are old, give or take one.

    Which source a position belongs to depends on the position alone; which of its records and what chance makes of it,
    on the seed and the position. Each source goes through its own epochs. A bad record is replaced by one of its own
    source, so that the share holds.
    """

    def __init__(self, new: TrainingRows, old: TrainingRows, share: float) -> None:
        self.new, self.old = new, old
        # As a ratio of integers: the products below are exact at any position.
        self.share = fractions.Fraction(share).limit_denominator(10_000)
        if not 0 < self.share < 1:
            raise ValueError(f"data.mix_share must be at least 0.0001 from 0 and 1, got {share}")

    def __len__(self) -> int:
        return POSITIONS

    def __getitem__(self, position: int) -> ExampleFields:
        before = self.old_before(position)
        if self.old_before(position + 1) == before:
            return self.new.at(position - before, position)
        row = self.old.at(before, position)
        return {**row, "record": row["record"] + row["record"].dtype.type(len(self.new.source))}

    def old_before(self, position: int) -> int:
        """The number of old rows before a position."""
        return int(position) * self.share.numerator // self.share.denominator
