"""Results as data frames of text, which the template writes as tables."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.common.formatting import duration, mean_and_deviation, number, percent, times

Result = Mapping[str, Any]

FORMATS: dict[str, Callable[[Any], str]] = {
    "number": number,
    "duration": duration,
    "percent": percent,
    "times": times,
    "mean": mean_and_deviation,
    "ratio": "{:.3f}".format,
    "points": lambda share: f"{100 * share:+.1f}",
    "round": lambda value: f"{value:,.0f}",
}
"""How a column is written, by the name that a specification uses."""

_SETTINGS = {
    "samples": "samples", "labelled": "labelled", "classes": "classes", "shape": "shape",
    "targets": "targets", "candidate_pool": "candidate pool",
    "query_batch_size": "query batch size", "threads": "threads",
    "queries_per_pair": "queries per pair",
}  # fmt: skip
"""The settings of a point of growth."""


def columns(rows: Sequence[Result] | Mapping[str, Result], spec: Mapping[str, str]) -> pd.DataFrame:
    """Makes a table with the columns that a specification lists.

    Args:
        rows: Records, or records by name, which become the column "name".
        spec: By heading, what the column shows: a key, dotted if nested, or an expression of keys,
            then ":" and one of `FORMATS` unless it is "number".
    """
    if isinstance(rows, Mapping):
        rows = [{"name": name, **row} for name, row in rows.items()]
    frame = pd.json_normalize(list(rows)).astype(object)
    shown = {}
    for heading, column in spec.items():
        key, _, style = column.partition(":")
        values = frame[key] if re.fullmatch(r"[\w.]+", key) else frame.eval(key)
        shown[heading] = values.map(
            lambda value, style=style: _write(value, FORMATS[style or "number"])
        )
    return pd.DataFrame(shown)


def grid(
    cells: Mapping[str, Mapping[str, Any]], style: str = "number", heading: str = ""
) -> pd.DataFrame:
    """Makes a table from values by row and column; numeric columns are put in order.

    Args:
        cells: By row, the values by column.
        style: One of `FORMATS`.
        heading: The heading of the first column.
    """
    frame = pd.DataFrame.from_dict(cells, orient="index", dtype=object)
    if all(str(column).isdigit() for column in frame.columns):
        frame = frame[sorted(frame.columns, key=int)].rename(
            columns=lambda count: f"{int(count):,}"
        )
    frame = frame.map(lambda value: _write(value, FORMATS[style]))
    return frame.reset_index().rename(columns={"index": heading})


def ops(rows: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """By place: seconds of the native and eager ways, and how many times as fast each way is."""
    key = ["op", "size", "rows"]
    tables = {}
    for place, part in pd.DataFrame(rows).groupby("place", sort=False):
        part = part.reindex(columns=[*key, "way", "seconds", "of_copy", "times_eager"])
        wide = part.pivot_table(
            index=key, columns="way", values=["seconds", "of_copy", "times_eager"],
            aggfunc="first", sort=False, dropna=False,
        ).dropna(how="all")  # fmt: skip
        shown = {
            "native": ("seconds", "native", duration),
            "of a copy's speed": ("of_copy", "native", percent),
            "eager": ("seconds", "eager", duration),
            **{
                f"{way} / eager": ("times_eager", way, times)
                for way in ("native", "compiled", "stored", "numpy")
            },
        }
        empty = pd.Series(float("nan"), index=wide.index)
        table = {
            heading: wide.get((value, way), empty).map(
                lambda cell, write=write: _write(cell, write)
            )
            for heading, (value, way, write) in shown.items()
        }
        index = wide.index.to_frame().map(number)
        tables[str(place)] = pd.concat([index, pd.DataFrame(table)], axis=1)
    return tables


def student_overview(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """By student: accuracy and queries per sample of each method, with a column for each result."""
    if len(results) < 2:
        return {}
    tables: dict[str, dict[str, dict[str, str]]] = {}
    for result in results:
        column = f"{result['data'].removesuffix('-train')} {result['images']:,}"
        for student, rows in result["students"].items():
            for row in rows:
                queries = row["queries_per_sample"]
                cost = "" if queries is None else f" ({queries:,.0f})"
                cell = mean_and_deviation(row["accuracies"]) + cost
                tables.setdefault(student, {}).setdefault(row["method"], {})[column] = cell
    return {student: grid(tables[student]) for student in sorted(tables, reverse=True)}


def budgets(rows: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """By student: what each strategy makes of a budget, with a column for each number of images."""
    frame = pd.DataFrame(rows)
    tables: dict[str, dict[str, dict[str, str]]] = {}
    keys = ["student", "images", "queries_per_sample", "strategy"]
    for (student, images, per_sample, strategy), part in frame.groupby(keys, sort=False):
        accuracy = mean_and_deviation(list(part["accuracy"]))
        agreement = mean_and_deviation(list(part["agreement"]))
        queries = part["queries"].mean()
        cost = f" ({queries:,.0f})" if queries else ""
        column = f"{images:,} images, {per_sample:g} queries each"
        row = tables.setdefault(student, {}).setdefault(strategy, {})
        row[column] = f"{accuracy} / {agreement}{cost}"
    return {student: grid(cells) for student, cells in tables.items()}


def extraction(rows: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """By images and budget: accuracy and agreement of each method, the best agreement first."""
    tables = {}
    for (images, budget), part in pd.DataFrame(rows).groupby(["images", "budget"], sort=False):
        pool = f"{images:,} images at hand" if images else "no images"
        methods = []
        for method, found in part.groupby("method", sort=False):
            steps = sorted({int(count) for count in found["student_steps"]})
            methods.append(
                {
                    "method": method,
                    "test accuracy %": mean_and_deviation(list(found["accuracy"])),
                    "agreement %": mean_and_deviation(list(found["agreement"])),
                    "queries": number(round(found["queries"].mean())),
                    "student's steps": " to ".join(f"{count:,}" for count in steps),
                    "CPU time": duration(found["cpu_seconds"].mean()),
                    "seeds": len(found),
                    "order": -found["agreement"].mean(),
                }
            )
        frame = pd.DataFrame(methods).sort_values("order", kind="stable").drop(columns="order")
        tables[f"{pool}, {budget:,} queries"] = frame
    return tables


def shared_settings(series: Result) -> str:
    """The settings that all points of a series of growth have in common."""
    first, *others = series["points"]
    return ", ".join(
        f"{label} {_setting(first[key])}"
        for key, label in _SETTINGS.items()
        if key in first
        and key != series["varied"]
        and all(point[key] == first[key] for point in others)
    )


def everything(result: Result) -> dict[str, pd.DataFrame]:
    """Any result: its single values in one table, and a table for each list of records."""
    flat = pd.json_normalize(dict(result), sep=", ").iloc[0].to_dict()
    is_list = {key: isinstance(value, list) and bool(value) and isinstance(value[0], dict)
               for key, value in flat.items()}  # fmt: skip
    tables = {}
    single = [(key, number(value)) for key, value in flat.items() if not is_list[key]]
    if single:
        tables[""] = pd.DataFrame(single, columns=["", "value"])
    for key, value in flat.items():
        if is_list[key]:
            tables[key] = pd.json_normalize(value, sep=", ").astype(object).map(number)
    return tables


def _write(value: Any, write: Callable[[Any], str]) -> str:
    missing = value is None or (isinstance(value, float) and value != value)
    return number(None) if missing else write(value)


def _setting(value: int | Sequence[int] | None) -> str:
    if isinstance(value, Sequence):
        return "x".join(map(str, value))
    return "all" if value is None else number(value)
