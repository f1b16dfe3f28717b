"""Writes results with what they were measured with. Imports nothing that training needs."""

import argparse
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.commit import commit

RESULTS = Path(__file__).parents[1] / "results"


def plain_parser(description: str | None) -> argparse.ArgumentParser:
    """Makes a parser with the option --save, which `keep` reads; it shows the description as is."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--save", metavar="NAME", help="write the result to results/NAME.json")
    return options


def keep(options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Writes a result to the file that --save names, if it is given."""
    if not options.save:
        return
    file = RESULTS / f"{options.save}.json"
    write(file, {"measured": measured(), **result})
    print(f"written to {file}")


def rows_so_far(name: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of an earlier result made with these settings, or none without a result.

    Raises:
        SystemExit: If it was made with other settings.
    """
    file = RESULTS / f"{name}.json"
    if not name or not file.exists():
        return []
    kept = json.loads(file.read_text())
    for setting, value in settings.items():
        if kept[setting] != value:
            raise SystemExit(
                f"--save: {file} was made with {setting} {kept[setting]}, got {value}; "
                "pass the same options or another name"
            )
    return kept["rows"]


def measure_missing(
    options: argparse.Namespace,
    settings: Mapping[str, Any],
    rows: Iterable[tuple[Mapping[str, Any], Callable[[], Mapping[str, Any] | None]]],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Measures the rows that a result lacks, and writes the result after each.

    Args:
        options: The options, with --save.
        settings: See `rows_so_far`; they are written too.
        rows: What tells a row apart, and a function that returns the rest of it; None leaves the
            row out.
        facts: Further entries of the result, which come first.
    """
    kept = rows_so_far(options.save, settings)
    for entries, measure in rows:
        if any(all(row[name] == value for name, value in entries.items()) for row in kept):
            continue
        found = measure()
        if found is not None:
            kept.append({**entries, **found})
            keep(options, {**(facts or {}), **settings, "rows": kept})


def write(file: Path, result: Mapping[str, Any]) -> None:
    """Writes a result atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(file)


def measured() -> dict[str, Any]:
    """The commit, processor, threads and versions of a measurement."""
    return {
        "commit": commit(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "numpy")}
        | {"python": platform.python_version()},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
