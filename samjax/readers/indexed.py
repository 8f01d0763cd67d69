"""The base of all sources: records by number, those that proved unusable when the source was opened at the end."""

from collections.abc import Sequence

from samjax.readers.files import Unreachable
from samjax.readers.left_out import Problem, Reason, Tally, Unusable, tally
from samjax.readers.record import BadRecord, Record


class IndexedSource:
    """A `Source` of `count` records that a sub-class names and reads, and of `flawed` ones that only have a reason.

    Flawed records (duplicates, photos without annotations' file, members of a truncated archive) are kept so that
    they are counted and reported like those that turn out bad when they are read. The last of them are files and
    annotations that belong to no photo.

    Attributes:
        flawed: with their names and reasons.
        strays: the last of `flawed`, which belong to no photo.
        left_out: what was known to be left out when the source was opened, the flawed included.
        classes: the names of all categories in the order of their numbers, where the source lists them.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, where: str, count: int, flawed: Sequence[Problem] = (), left_out: Tally | None = None) -> None:
        """`left_out` counts what is no record: photos without objects, crowds. Raises ValueError if there is nothing
        to read."""
        if not count:
            reasons = "; ".join(map(str, flawed[:3]))
            raise ValueError(f"there are no records in {where}" + (f" ({reasons})" if reasons else ""))
        self._count = count
        self.strays = tuple(flaw for flaw in flawed if flaw.stray)
        self.flawed = (*(flaw for flaw in flawed if not flaw.stray), *self.strays)
        self.left_out = tally(self.flawed)
        if left_out is not None:
            self.left_out.add(left_out)

    def __len__(self) -> int:
        return self._count + len(self.flawed)

    def name(self, index: int) -> str:
        """The record's name, without reading it."""
        self._check(index)
        return self._name(index) if index < self._count else self.flawed[index - self._count].what

    def __getitem__(self, index: int) -> Record:
        """Raises `BadRecord` if there is nothing to use, `Unreachable` where the network is down."""
        self._check(index)
        if index >= self._count:
            flaw = self.flawed[index - self._count]
            raise BadRecord(flaw.detail, flaw.reason)
        try:
            return self._read(index)
        except (Unreachable, BadRecord):
            raise
        except Unusable as error:
            raise BadRecord(str(error), error.reason) from error
        except FileNotFoundError as error:
            raise BadRecord(str(error), Reason.MISSING) from error
        except (OSError, EOFError, ValueError) as error:
            raise BadRecord(str(error)) from error

    def _name(self, index: int) -> str:
        raise NotImplementedError

    def _read(self, index: int) -> Record:
        """OSError, EOFError and ValueError become `BadRecord`."""
        raise NotImplementedError

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
