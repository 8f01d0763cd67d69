"""What all sources share: records by number, those that proved unusable when the source was opened at the end."""

from collections.abc import Sequence

from samjax.data.files import Unreachable
from samjax.data.record import BadRecord, Record


class IndexedSource:
    """A `Source` of `count` records that a sub-class names and reads, and of `flawed` ones that only have a reason.

    Flawed records (duplicates, photos without annotations' file, members of a truncated archive) are kept so that
    they are counted and reported like those that turn out bad when they are read.
    """

    def __init__(self, where: str, count: int, flawed: Sequence[tuple[str, str]] = ()) -> None:
        """`flawed` has names and reasons. Raises ValueError where there is nothing to read."""
        if not count:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in flawed[:3])
            raise ValueError(f"there are no records in {where}" + (f" ({reasons})" if reasons else ""))
        self._count = count
        self._flawed = tuple(flawed)

    def __len__(self) -> int:
        return self._count + len(self._flawed)

    def name(self, index: int) -> str:
        """The record's name, without reading it."""
        self._check(index)
        return self._name(index) if index < self._count else self._flawed[index - self._count][0]

    def __getitem__(self, index: int) -> Record:
        """Raises `BadRecord` where there is nothing to use, `Unreachable` where the network is down."""
        self._check(index)
        if index >= self._count:
            raise BadRecord(self._flawed[index - self._count][1])
        try:
            return self._read(index)
        except Unreachable:
            raise
        except (BadRecord, OSError, EOFError, ValueError) as error:
            raise BadRecord(str(error)) from error

    def _name(self, index: int) -> str:
        raise NotImplementedError

    def _read(self, index: int) -> Record:
        """OSError, EOFError and ValueError become `BadRecord`."""
        raise NotImplementedError

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
