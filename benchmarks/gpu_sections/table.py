"""Records as the Markdown that docs/benchmarks.md takes."""

from collections.abc import Iterable, Iterator
from typing import Any

from gpu_sections.jobs import Record


def table(machine: dict[str, Any], records: list[Record]) -> str:
    """All that was measured, then what was not and why."""
    parts = [_machine(machine, records)]
    parts += [_checks(records), _speeds(records), _unmeasured(records)]
    return "\n\n".join(filter(None, parts)) + "\n"


def peak(records: Iterable[Record], field: str) -> float | None:
    """The largest of what was measured as the device's peak."""
    return max((record[field] for record in records if record["kind"] == "peak" and field in record), default=None)


def line(record: Record) -> str:
    """A record in few words, for a terminal."""
    what = f"{record['section']}: {record.get('what', '')} ({record['contender']})"
    match record["kind"]:
        case "check":
            verdict = "passed" if record["passed"] else "FAILED"
            return f"{what}: {_number(record['measured'])}, bar {_number(record['bar'])}: {verdict}"
        case "speed":
            return f"{what}: {1e3 * record['seconds']:.2f} ms"
        case "peak":
            return f"{what}: " + ", ".join(_peaks(record))
        case "failed" | "skipped":
            return f"{record['section']} ({record['contender']}): {record['kind']}: {record['reason']}"
        case _:
            return what


def _machine(machine: dict[str, Any], records: list[Record]) -> str:
    cards = dict.fromkeys(record["card"] for record in records)
    facts = [*cards] + [f"{name} {value}" for name, value in machine.items() if value and name not in ("card", "date")]
    text = f"Measured on {', '.join(facts)}, {machine['date']}."
    peaks = [
        f"{record['contender']}: {figure}"
        for record in records
        if record["kind"] == "peak"
        for figure in _peaks(record)
    ]
    if peaks:
        text += f" Peaks ({'; '.join(peaks)}): shares are of the larger, in bfloat16."
    return text


def _peaks(record: Record) -> Iterator[str]:
    if "flops_per_second" in record:
        yield f"{record['flops_per_second'] / 1e12:.4g} TFLOP/s"
    if "bytes_per_second" in record:
        yield f"{record['bytes_per_second'] / 1e12:.3g} TB/s"


def _checks(records: list[Record]) -> str:
    rows = [
        (
            record["what"],
            _number(record["measured"]),
            f"{'≥' if record['at_least'] else '≤'} {_number(record['bar'])}",
            "yes" if record["passed"] else "**no**",
        )
        for record in records
        if record["kind"] == "check"
    ]
    return _markdown(("check", "measured", "bar", "passed"), rows)


def _speeds(records: list[Record]) -> str:
    rows = []
    for record in records:
        if record["kind"] != "speed":
            continue
        a_second = next(f"{value:.4g} {name[:-11]}" for name, value in record.items() if name.endswith("_per_second"))
        share, peak_bytes = record.get("share_of_peak"), record.get("peak_bytes")
        rows.append((
            record["what"],
            f"{record['contender']}, {record['dtype']}",
            f"{1e3 * record['seconds']:.4g}",
            a_second,
            "" if share is None else f"{100 * share:.1f} %",
            "" if peak_bytes is None else f"{peak_bytes / 1e9:.2f}",
            "" if "compile_seconds" not in record else f"{record['compile_seconds']:.1f}",
        ))  # fmt: skip
    return _markdown(("what", "by", "ms", "a second", "share of peak", "peak GB", "compile s"), rows)


def _unmeasured(records: list[Record]) -> str:
    rows = [
        (record["section"], record["contender"], f"{record['kind']}: {record['reason']}")
        for record in records
        if record["kind"] in ("failed", "skipped")
    ]
    return _markdown(("not measured", "by", "why"), rows)


def _markdown(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def _number(value: float) -> str:
    return f"{value:.6g}"
