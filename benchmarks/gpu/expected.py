"""What is expected of a GPU: the roofline of an op, and the figure that its kernel should reach."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Figure = Literal["share_of_copy", "times_eager"]


@dataclass(frozen=True)
class DataSheet:
    """The peak rates of a GPU by its data sheet: memory, and float32 without tensor cores."""

    bytes_per_second: float
    operations_per_second: float


DATA_SHEETS = {
    "H200": DataSheet(4.8e12, 67e12),
    "H100 NVL": DataSheet(3.9e12, 60e12),
    "H100 PCIe": DataSheet(2.0e12, 51e12),
    "H100": DataSheet(3.35e12, 67e12),
}
"""By a part of the name that torch reports; the first that fits counts."""


def data_sheet(device_name: str) -> DataSheet | None:
    """Returns the data sheet of a device, or None if it is not listed."""
    return next((sheet for name, sheet in DATA_SHEETS.items() if name in device_name), None)


@dataclass(frozen=True)
class Cost:
    """What a call has to do at least.

    Attributes:
        written: Bytes that it writes.
        read: Bytes that it reads, each once.
        operations: float32 operations.
    """

    written: int
    read: int
    operations: float

    def lower_bound(self, sheet: DataSheet) -> float:
        """Returns the seconds that no implementation can beat on such a device."""
        moving = (self.written + self.read) / sheet.bytes_per_second
        return max(moving, self.operations / sheet.operations_per_second)


@dataclass(frozen=True)
class Expected:
    """The range in which a figure of a row is expected.

    Attributes:
        figure: "share_of_copy", the bytes written per second over those of a copy; or
            "times_eager", how many times faster the op is than eager PyTorch, with launches.
        low: The least value.
        high: The largest value; None for no limit.
    """

    figure: Figure
    low: float
    high: float | None = None


def with_expectation(
    row: dict[str, Any], cost: Cost, expected: Expected | None, device_name: str
) -> dict[str, Any]:
    """Adds lower bounds and the expected figure to the row of an op that was measured.

    The row gets `lower_bounds` (seconds on each device of `DATA_SHEETS`), `share_of_roofline` if
    the device is one of them, `expected`, and `as_expected`: whether the figure reached `low`.
    """
    row["lower_bounds"] = {name: cost.lower_bound(sheet) for name, sheet in DATA_SHEETS.items()}
    sheet = data_sheet(device_name)
    if sheet is not None:
        row["share_of_roofline"] = cost.lower_bound(sheet) / row["native"]["median"]
    if "median" in row.get("eager", {}):
        row["times_eager"] = row["eager"]["median"] / row["native_with_launch"]["median"]
    if expected is not None:
        row["expected"] = asdict(expected)
        if expected.figure in row:
            row["as_expected"] = row[expected.figure] >= expected.low
    return row


def table(result: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Returns the ops of a result as a Markdown table of expected and measured figures."""
    lines = [
        f"Measured on {result['device']['name']}, commit {result['measured']['commit']}.",
        "",
        "| op | lower bound H100 | lower bound H200 | measured | expected | reached | |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in parts:
        rows = result.get(part, [])
        for row in rows if isinstance(rows, list) else [{"name": part, **rows}]:
            lines.append(_line(row))
    return "\n".join(lines) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    if "error" in row:
        return f"| {row.get('name', '')} | | | failed: {row['error']} | | | |"
    bounds = row["lower_bounds"]
    expected = row.get("expected")
    cells = [
        row["name"],
        _time(bounds["H100"]),
        _time(bounds["H200"]),
        _time(row["native"]["median"]),
        "" if expected is None else _range(expected),
        "" if expected is None else _figure(row.get(expected["figure"]), expected["figure"]),
        {True: "", False: "below", None: ""}[row.get("as_expected")],
    ]
    return f"| {' | '.join(cells)} |"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} µs"


def _range(expected: Mapping[str, Any]) -> str:
    low, high = (_figure(expected[end], expected["figure"], unit=False) for end in ("low", "high"))
    unit = "% of copy" if expected["figure"] == "share_of_copy" else "x eager"
    return f"{low} to {high} {unit}" if high else f"at least {low} {unit}"


def _figure(value: float | None, figure: str, unit: bool = True) -> str:
    if value is None:
        return ""
    if figure == "share_of_copy":
        return f"{value:.0%}" if unit else f"{value * 100:.0f}"
    return f"{value:.1f} x" if unit else f"{value:.0f}"
