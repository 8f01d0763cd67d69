"""Reasons why photos and annotations are left out: in words for each, in kinds for counting."""

import dataclasses
import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from samjax.foreground import EmptyMask


class Reason(enum.StrEnum):
    """Kinds of what is wrong, as the console counts them: "3 annotations (2 with iscrowd 1, 1 malformed)"."""

    # of annotations
    CROWD = "with iscrowd 1"
    REPEAT = "repeated"
    EMPTY = "with an empty mask"
    NO_AREA = "without area"
    OUTSIDE = "out of the photo"
    MALFORMED = "malformed"
    UNKNOWN_KIND = "of an unknown kind"
    BOX = "with an unusable bbox"  # which is noted: they are used all the same
    # of photos, and of annotations that are files
    SIZE = "of another size than the photo"
    UNREADABLE = "unreadable"
    MISSING = "missing"
    AMBIGUOUS = "with a name or id that is not unique"
    DUPLICATE = "duplicated"
    NO_USABLE_MASK = "without a usable mask"
    NO_FITTING_MASK = "without a mask of a suitable size"
    NO_OBJECTS = "without objects"
    NO_ANNOTATIONS = "without an annotation file"
    NO_PHOTO = "without a photo"  # files and annotations
    OTHER = "for other reasons"


# For an error that crowds are the cause of.
CROWD_ADVICE = "if those with iscrowd 1 are single objects (CVAT writes it for every mask), set their iscrowd to 0"


class Unusable(ValueError):
    """Something of a data set that cannot be used; the message says what is wrong with it, `reason` of which kind."""

    def __init__(self, message: str, reason: Reason = Reason.MALFORMED) -> None:
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Problem:
    """One photo or annotation with what is wrong with it; as text "annotation 7: its mask is empty"."""

    what: str  # as messages call it
    detail: str
    reason: Reason = Reason.OTHER
    # Where it belongs to no photo: which numbers of a `Tally` it is among, and how many annotations it stands for.
    stray: Literal["", "files", "annotations"] = ""
    count: int = 1

    @classmethod
    def of(cls, what: str, error: object) -> "Problem":
        """The problem that an error tells of; an error that does not know its kind is about a file."""
        if isinstance(error, Unusable):
            return cls(what, str(error), error.reason)
        return cls(what, str(error), Reason.EMPTY if isinstance(error, EmptyMask) else Reason.UNREADABLE)

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"


@dataclasses.dataclass
class Tally:
    """Numbers of photos, annotations and files by reason."""

    photos: Counter[str] = dataclasses.field(default_factory=Counter)  # left out
    annotations: Counter[str] = dataclasses.field(default_factory=Counter)  # left out; their photos are used
    noted: Counter[str] = dataclasses.field(default_factory=Counter)  # flawed annotations that are used all the same
    files: Counter[str] = dataclasses.field(
        default_factory=Counter
    )  # left out: of masks and annotations, without photo

    def add(self, other: "Tally") -> None:
        self.photos.update(other.photos)
        self.annotations.update(other.annotations)
        self.noted.update(other.noted)
        self.files.update(other.files)

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def explain(self) -> str:
        """The text for an error: there is nothing left to use, and this may be done about it."""
        return f"{self}; {CROWD_ADVICE}" if self.annotations[Reason.CROWD] else str(self)

    def __str__(self) -> str:
        """The text for the console: "left out: 3 photos (2 unreadable, 1 duplicated), 7 annotations (7 malformed)"."""
        kinds = (("photo", self.photos), ("file", self.files), ("annotation", self.annotations))
        parts = [_counted(count, kind) for kind, count in kinds if count]
        text = "left out: " + (", ".join(parts) or "nothing")
        return text + (f"; used all the same: {_counted(self.noted, 'annotation')}" if self.noted else "")


def count_by_reason(problems: Iterable[Problem]) -> Counter[str]:
    """Counts problems by reason."""
    total: Counter[str] = Counter()
    for problem in problems:
        total[problem.reason.value] += problem.count
    return total


def tally(problems: Iterable[Problem]) -> Tally:
    """Counts photos that are left out, and what belongs to no photo."""
    by_kind: dict[str, list[Problem]] = {"photos": [], "files": [], "annotations": []}
    for problem in problems:
        by_kind[problem.stray or "photos"].append(problem)
    return Tally(**{kind: count_by_reason(found) for kind, found in by_kind.items()})


def _counted(counts: Mapping[str, int], kind: str) -> str:
    total = sum(counts.values())
    listed = ", ".join(f"{number:,} {reason}" for reason, number in Counter(counts).most_common())
    return f"{total:,} {kind}{'s' * (total != 1)} ({listed})"
