"""The record of finished photos of an evaluation, in the folder of its results.

OUT/run.json             what decides the results: protocol, settings, data, model
OUT/records/I-of-N.jsonl one line a photo, by process: {"photo", "record", "seconds", "left_out", "noted"}, whose last
                         two are lists of [annotation, what is wrong, kind], or {"photo", "error", "reason": kind}
"""

import json
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from samjax.atomic import replacing
from samjax.evaluation.protocol import Judgement
from samjax.lock import check_share
from samjax.readers.left_out import Problem, Reason

RUN, RECORDS = "run.json", "records"


class Known(NamedTuple):
    """Everything that the processes of a run have written so far, by the photo's name."""

    records: dict[str, Judgement]
    errors: dict[str, str]  # of photos without a record
    seconds: float  # of judging those with one
    left_out: dict[str, list[Problem]]  # annotations of photos with a record; of those that have any
    noted: dict[str, list[Problem]]  # likewise, annotations that are used all the same
    reasons: dict[str, str]  # of errors, their kinds


class JudgementJournal:
    """Appends this process's records, and reads those of all. A context manager that holds the file open.

    A process has a file of its own, so no two write into one. Lines are flushed as they come; what a killed process
    left of its last one is removed when it starts again.
    """

    def __init__(self, out: Path, process_index: int, process_count: int) -> None:
        check_share(process_index, process_count)
        self.folder = out / RECORDS
        self.path = self.folder / f"{process_index}-of-{process_count}.jsonl"

    def __enter__(self) -> "JudgementJournal":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        whole = self.path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(whole)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._file.close()

    def done(
        self,
        photo: str,
        record: Judgement,
        seconds: float,
        left_out: Sequence[Problem] = (),
        noted: Sequence[Problem] = (),
    ) -> None:
        """Raises TypeError for a record that is not JSON."""
        problems = {
            kind: [[problem.what, problem.detail, problem.reason.value] for problem in given]
            for kind, given in (("left_out", left_out), ("noted", noted))
        }
        self._append({"photo": photo, "record": record, "seconds": seconds, **problems})

    def failed(self, photo: str, error: str, reason: Reason = Reason.OTHER) -> None:
        self._append({"photo": photo, "error": error, "reason": reason.value})

    def read(self) -> Known:
        """The records of all processes, also of earlier runs with other numbers of them."""
        records: dict[str, Judgement] = {}
        errors: dict[str, str] = {}
        seconds: dict[str, float] = {}
        left_out: dict[str, list[Problem]] = {}
        noted: dict[str, list[Problem]] = {}
        reasons: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for entry in _lines(path):
                photo = entry["photo"]
                if "error" in entry:
                    errors[photo] = entry["error"]
                    reasons[photo] = entry.get("reason", Reason.OTHER.value)
                else:
                    records[photo], seconds[photo] = entry["record"], entry["seconds"]
                    left_out[photo] = _problems(entry["left_out"])
                    noted[photo] = _problems(entry.get("noted", []))
        errors = {photo: error for photo, error in errors.items() if photo not in records}
        reasons = {photo: reasons[photo] for photo in errors}
        left_out, noted = ({photo: found for photo, found in all.items() if found} for all in (left_out, noted))
        return Known(records, errors, sum(seconds.values()), left_out, noted, reasons)

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, default=_plain) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())


def claim(out: Path, identity: Mapping[str, Any]) -> None:
    """Makes OUT the folder of this run, or finds that it is.

    Raises ValueError, naming what differs, where OUT has results of another protocol, of other settings, data or model.
    """
    now = json.loads(json.dumps(identity, default=_plain))
    path = out / RUN
    if not path.exists():
        if any((out / RECORDS).glob("*.jsonl")):
            raise ValueError(f"{out / RECORDS} has results, but {path} that says of what is missing; remove both")
        if (out / "results.json").exists():
            raise ValueError(f"{out} has a results.json of something else; give another --out, or remove it")
        with replacing(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    try:  # also what was just written: another process may have been at it
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is damaged; remove the folder, or give another --out") from None
    was, is_now = _flat(before), _flat(now)
    differing = [
        f"{name}: {was.get(name, 'nothing')}, now {is_now.get(name, 'nothing')}"
        for name in {**was, **is_now}
        if was.get(name) != is_now.get(name)
    ]
    if differing:
        raise ValueError(
            f"{out} holds results of another evaluation:\n  "
            + "\n  ".join(differing)
            + "\nResume it as it was started, give this one another --out, or remove the folder"
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    """Those that are whole: the last may be cut off, or on its way."""
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        raise ValueError(f"{path} is damaged; remove it, and its photos are judged again") from None


def _problems(left_out: int | list[list[str]]) -> list[Problem]:
    """The problems of a photo's annotations, of which earlier versions wrote only the number."""
    if isinstance(left_out, int):
        return [Problem("annotation", "it cannot be used")] * left_out
    return [Problem(what, detail, Reason(kind)) for what, detail, kind in left_out]


def _flat(tree: Any, name: str = "") -> dict[str, str]:
    """Leaves as text by their path, "settings.clicks"."""
    if not isinstance(tree, dict):
        return {name: json.dumps(tree)}
    return {k: v for key, sub in tree.items() for k, v in _flat(sub, f"{name}.{key}" if name else str(key)).items()}


def _plain(value: Any) -> Any:
    """Converts values that JSON does not know: NumPy's numbers and arrays, paths, and the runs of pycocotools' RLE."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a record is JSON; {type(value).__name__} is none")
