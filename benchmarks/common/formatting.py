"""Markdown of what a benchmark measured: numbers, tables, and any nested result."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MISSING = "\N{EN DASH}"


def number(value: object) -> str:
    """A cell: whole numbers with thousands, others to four digits, nothing as a dash."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", r"\|").replace("\n", " ")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Rows of anything `number` takes; the first column to the left, the others to the right."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    cells = [[number(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(map(str, head)), marks, *cells])


def nested(value: Mapping[str, Any], path: str = "") -> list[str]:
    """Any result as blocks: what is single in one table, and a table for each list and mapping.

    A list of mappings becomes a table with a column for each of their keys, and so does a mapping
    of mappings, whose own keys come first. A mapping of single values is a table of one row.
    What lies deeper comes after, under its path.
    """
    single = {key: item for key, item in value.items() if _is_single(item)}
    blocks = [f"**{path}**"] if path and single else []
    if single:
        blocks.append(table(list(single), [list(single.values())]))
    for key, item in value.items():
        if not _is_single(item):
            blocks += _group(item, f"{path}, {key}" if path else str(key))
    return blocks


def _group(item: Any, path: str) -> list[str]:
    """A list, or a mapping, under its path."""
    if isinstance(item, Mapping) and not all(isinstance(entry, Mapping) for entry in item.values()):
        return nested(item, path)
    entries = item.items() if isinstance(item, Mapping) else enumerate(item)
    named = [(name, entry) for name, entry in entries if isinstance(entry, Mapping)]
    if not named:
        return []
    columns = [key for _, entry in named for key, value in entry.items() if _is_single(value)]
    columns = list(dict.fromkeys(columns))
    first = [""] if isinstance(item, Mapping) else []
    rows = [
        [*([name] if first else []), *(entry.get(column) for column in columns)]
        for name, entry in named
    ]
    blocks = [f"**{path}**", table([*first, *columns], rows)] if columns else []
    for name, entry in named:
        for key, value in entry.items():
            if not _is_single(value):
                blocks += _group(value, f"{path}, {name}, {key}")
    return blocks


def _is_single(value: object) -> bool:
    """Whether it fits a cell: no mapping, and no list of mappings or lists."""
    if isinstance(value, Mapping):
        return False
    if isinstance(value, list):
        return not any(isinstance(entry, Mapping | list) for entry in value)
    return True
