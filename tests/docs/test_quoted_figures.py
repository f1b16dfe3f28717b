"""The tables of the pages quote the results in `benchmarks/results` as they were measured."""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

formatting = pytest.importorskip(
    "benchmarks.common.formatting", reason="benchmarks are not installed"
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"

_WHITE_BOX = "white box, patient"
_STRATEGIES = {"SD": "sd", "BD": "bd", "MBD": "mbd", "white box": _WHITE_BOX}
_NOT_MEASURED = "\N{EN DASH}"

Row = dict[str, Any]
Cells = dict[str, str]
"""The cells of a row, by column."""

Quote = Callable[[str, str, Cells], str | None]
"""Returns the text of a cell from the first cell of its row, its column and the row; None if it
quotes no result."""


@cache
def result(name: str) -> Row:
    return json.loads((RESULTS / f"{name}.json").read_text())


def rows_of(name: str, /, **wanted: Any) -> list[Row]:
    """Returns the rows of a result that have these values."""
    return [row for row in result(name)["rows"] if wanted.items() <= row.items()]


def students(
    name: str, images: int, queries: float, student: str, strategy: str = "auto"
) -> list[Row]:
    """Returns the rows of one cell of `budgets`, one for each seed."""
    wanted = {"images": images, "student": student, "strategy": strategy}
    if strategy != _WHITE_BOX:  # which has no queries
        wanted["queries_per_sample"] = queries
    return rows_of(name, **wanted)


def first_found(names: Sequence[str], *cell: Any) -> list[Row]:
    """Returns the rows of a cell (see `students`) in the first of these results that has some."""
    stored = (name for name in names if (RESULTS / f"{name}.json").exists())
    return next((found for name in stored if (found := students(name, *cell))), [])


def percent(shares: Sequence[float], *, deviation: bool = True) -> str:
    """Formats the mean of shares, and with three seeds or more the deviation."""
    written = deviation and len(shares) > 2
    return (formatting.mean_and_deviation if written else formatting.mean_percent)(shares)


def both(rows: Sequence[Row], *, both_deviations: bool = False) -> str:
    """Formats accuracy and agreement, with the deviation of the agreement or of both."""
    if not rows:
        return _NOT_MEASURED
    accuracy = percent([row["accuracy"] for row in rows], deviation=both_deviations)
    agreement = percent([row["agreement"] for row in rows])
    return f"{accuracy} / {agreement}{' (two seeds)' if len(rows) == 2 else ''}"


def setting(row: str) -> tuple[str, int, list[int], str]:
    """Reads "Fashion-MNIST, 1,000, 50, LeNet-5-half": data, images, other numbers, student."""
    data, images, *more, student = re.split(r", (?=\S)", row)
    student = student.lower().replace("lenet-5", "lenet5")
    return data.lower(), number(images), [number(text) for text in more], student


def number(text: str) -> int:
    return int(text.replace(",", ""))


def of_readme(row: str, column: str, cells: Cells) -> str | None:
    if column.startswith("baseline"):  # words
        return None
    distilled = column == "`db3kd distill`"
    queries, strategy = number(row) // 1000, "auto" if distilled else "augmented"
    if queries == 1:  # `auto` is then `sd`; neither depends on the budget
        queries, strategy = 2, "sd" if distilled else "decisions"
    names = ("budgets-fashion-mnist-6000", "budgets-1000-fashion-mnist-6000")
    found = first_found(names, 1000, queries, "lenet5-half", strategy)
    assert len(found) == 3
    return percent([each["agreement"] for each in found], deviation=False)


def of_budgets(row: str, column: str, cells: Cells) -> str:
    data, images, more, student = setting(row)
    queries = more[0] if more else 2
    strategy = _STRATEGIES.get(column, column)
    names = (f"budgets-two-queries-{data}-6000", f"budgets-{images}-{data}-6000")
    return both(first_found((*names, f"budgets-{data}-6000"), images, queries, student, strategy))


def of_soft_labels(row: str, column: str, cells: Cells) -> str:
    data, images, _, student = setting(row)
    name, queries = re.fullmatch(r"(\w+) \((\d+)\)", column).groups()
    strategy = _STRATEGIES.get(name, name)
    asked = 2 if strategy == "sd" else number(queries)  # which spends one query in any budget
    names = ("two-queries", str(images), "bd", f"{images}-bd")
    stored = [f"budgets-{each}-{data}-6000" for each in names]
    return both(first_found(stored, images, asked, student, strategy))


def of_colour(row: str, column: str, cells: Cells) -> str:
    images, queries = (number(text) for text in re.split(r", (?=\S)", row))
    strategy = _STRATEGIES.get(column, column)
    stored = ("budgets-colour-photos", "budgets-300-colour-photos")
    return both(first_found(stored, images, queries, "resnet8-half", strategy))


def of_noise(row: str, column: str, cells: Cells) -> str:
    strategy, with_noise = re.fullmatch(r"(\w+)(, with noise)?", column).groups()
    name = f"budgets-{'1000-' if with_noise else ''}fashion-mnist-6000"
    return both(students(name, 1000, number(row), "lenet5-half", strategy))


def of_teaching(row: str, column: str, cells: Cells) -> str:
    data, images, (queries,), student = setting(row.removesuffix(" (three seeds)"))
    alone = students(f"budgets-without-proxies-{data}-6000", images, queries, student)
    assert (len(alone) == 3) == row.endswith(" (three seeds)")
    found = alone
    if column == "decisions and proxies":
        seeds = {each["seed"] for each in alone}
        taught = students(f"budgets-{images}-{data}-6000", images, queries, student)
        found = [each for each in taught if each["seed"] in seeds]
    return both(found).partition(" ±")[0]


def of_long_training(row: str, column: str, cells: Cells) -> str:
    data, _, queries = row.partition(", ")
    strategy = _STRATEGIES.get(column, column)
    name, asked = f"budgets-{data.lower()}-12000", number(queries) // 1000
    return both(students(name, 1000, asked, "lenet5-half", strategy), both_deviations=True)


def of_few_queries(row: str, column: str, cells: Cells) -> str:
    data, images, queries = re.split(r", (?=\S)", row)
    strategy = _STRATEGIES.get(column, column)
    name = f"budgets-few-{data.lower()}"
    found = students(name, number(images), number(queries), "lenet5-half", strategy)
    return both(found, both_deviations=True)


def of_extraction(name: str, methods: dict[str, str], row: str, column: str, cells: Cells) -> str:
    data, _, budget = column.partition(", ")
    asked = {"budget": number(budget)} if budget else {}
    return both(rows_of(f"{name}-{data.lower()}", method=methods[row], **asked))


def of_distilled_samples(row: str, column: str, cells: Cells) -> str:
    queries, steps = (number(text) for text in re.fullmatch(r"(\S+) \((\S+) steps\)", row).groups())
    found = rows_of(f"budgets-zero-shot-{column.lower()}-{steps}", queries=queries)
    return both(found, both_deviations=True)


def of_proxies(row: str, column: str, cells: Cells) -> str:
    kind = "without-proxies-" if row == "without proxies" else ""
    return both(
        rows_of(f"budgets-zero-shot-{kind}{column.lower()}-6000", queries=20_000),
        both_deviations=True,
    )


def of_tables(row: str, column: str, cells: Cells) -> str:
    strategy = _STRATEGIES.get(column, column)
    (found,) = (
        each["agreements"]
        for each in result("tables")["students"]
        if (each["table"], each["strategy"]) == (row, strategy)
    )
    return percent(found)


def of_distances(row: str, column: str, cells: Cells) -> str:
    methods = {
        "BD, 40 starting points": "BD, rays to images alone",
        "BD, 20 starting points, `--mixup-rounds 2`": "BD",
        "MBD": "MBD",
    }
    found = result("distances-mnist")["distance_over_optimum"][methods[row]].get(column)
    return "" if found is None else f"{found:.2f}"


def of_shared_training(row: str, column: str, cells: Cells) -> str:
    data, pairs = re.split(r", (?=\S)", row)
    searches = result(f"peers-{data.lower()}")["counting_training"]["db3kd MBD, lenet5"]
    (found,) = (each["over_other"] for each in searches if each["budget"] == int(column))
    return f"{100 * found[str(number(pairs.removesuffix(' pairs')))]:.0f} %"


def of_zero_shot(results: str, row: str, column: str, cells: Cells) -> str | None:
    if column not in ("MNIST", "Fashion-MNIST"):
        return None
    names = {
        "plain noise": "plain noise as in the paper",
        "plain starts, balanced (`--effort 10`)": "the most balanced",
        "guided, with BD soft labels": "guided",
        "real training images": "real images",
    }
    found = [
        each["accuracies"]
        for each in rows_of(results.format(column.lower()))
        if each["name"].startswith(names.get(row, row))
        and each["queries"] == number(cells["queries in total"])
    ]
    return percent(found[0]) if found else ""


def of_starts(row: str, column: str, cells: Cells) -> str:
    names = {
        "`paper`, with masked mixes": "starts: paper, with masked mixes",
        "the best of 8 starts and masked mixes (guided)": "the best of 8 starts and masked mixes",
        "starts and masked mixes in order, in rounds (one proposal per query)": (
            "starts and masked mixes"
        ),
        "`mixed`, without moves": "0 moves",
        "without moves, with BD soft labels": "0 moves, BD soft labels",
        "with 40 moves, as many as in the paper": "40 moves",
        "with 5 moves, each from 20 random directions (cold, as in the paper)": (
            "5 moves, each from 20 random directions"
        ),
        "with 5 moves and BD soft labels": "5 moves, BD soft labels",
    }
    name = names.get(row, row.removeprefix("with "))
    if (row, cells["images"]) == ("`mixed`", "50,000"):
        name = "no moves, 50,000 samples"
    elif row.startswith("`") and row.endswith("`"):
        name = f"starts: {row.strip('`')}"
    (found,) = rows_of("zero-shot-ablation", name=name)
    measured = {"images": "images", "queries in total": "queries"}
    if column in measured:
        return f"{found[measured[column]]:,}"
    return percent(found["accuracies"])


MEASUREMENTS, ZERO_SHOT, README = "docs/measurements.md", "docs/zero-shot.md", "README.md"

EXTRACTION = {
    "db3kd auto": "db3kd auto",
    "k-centre": "k-centre",
    "entropy": "entropy",
    "ART KnockoffNets, adaptive": "ART KnockoffNets adaptive",
    "ART CopycatCNN, and KnockoffNets with random images": "ART KnockoffNets random",
    "random": "random",
}
WITHOUT_IMAGES = {
    "db3kd": "db3kd zero-shot",
    "IDEAL, our implementation and training": "IDEAL, our training",
    "IDEAL, our implementation, its own training": "IDEAL, as in the paper",
    "DFHL-RS, our implementation and training": "DFHL-RS, our training",
    "DFHL-RS, our implementation, its own training": "DFHL-RS, as in the paper",
    "uniform noise": "uniform noise",
}

TABLES: list[tuple[str, str, Quote]] = [
    (
        README,
        "queries | baseline: trained on the teacher's classes for … | agreement | `db3kd distill`",
        of_readme,
    ),
    (MEASUREMENTS, "images, student | auto | augmented | SD | decisions | white box", of_budgets),
    (MEASUREMENTS, "images, queries per image, student | auto | augmented", of_budgets),
    (
        MEASUREMENTS,
        "images, student | SD (1) | BD (50) | BD (256) | auto (2) | auto (50) | auto (256)",
        of_soft_labels,
    ),
    (MEASUREMENTS, "images, queries for each | decisions | SD | augmented | auto", of_colour),
    (
        MEASUREMENTS,
        "queries per image | auto | augmented | auto, with noise | augmented, with noise",
        of_noise,
    ),
    (
        MEASUREMENTS,
        "images, queries per image, student | decisions alone | decisions and proxies",
        of_teaching,
    ),
    (MEASUREMENTS, "data, queries | auto | augmented | white box", of_long_training),
    (
        MEASUREMENTS,
        "images, queries per image | auto | augmented | SD | decisions | white box",
        of_few_queries,
    ),
    (
        MEASUREMENTS,
        "| Fashion-MNIST, 250 | Fashion-MNIST, 1,000 | Fashion-MNIST, 5,000 "
        "| MNIST, 250 | MNIST, 1,000 | MNIST, 5,000",
        partial(of_extraction, "extraction", EXTRACTION),
    ),
    (
        MEASUREMENTS,
        "| MNIST | Fashion-MNIST",
        partial(of_extraction, "extraction-without-images", WITHOUT_IMAGES),
    ),
    (MEASUREMENTS, "| auto | augmented | decisions | SD | BD | MBD", of_tables),
    (MEASUREMENTS, "| 50 | 100 | 150 | 250 | 500 | 1000 | 2000 | 4000", of_distances),
    (
        MEASUREMENTS,
        "queries per pair of the search with the surrogate | 50 | 100 | 250 | 500 | 1000",
        of_shared_training,
    ),
    (ZERO_SHOT, "queries and steps | MNIST | Fashion-MNIST", of_distilled_samples),
    (ZERO_SHOT, "20,000 samples, 6,000 steps | MNIST | Fashion-MNIST", of_proxies),
    (
        ZERO_SHOT,
        "| queries in total | MNIST | Fashion-MNIST",
        partial(of_zero_shot, "zero-shot-{}"),
    ),
    (
        ZERO_SHOT,
        "| images | queries in total | MNIST | Fashion-MNIST",
        partial(of_zero_shot, "zero-shot-{}-long"),
    ),
    (ZERO_SHOT, "| images | queries in total | accuracy %", of_starts),
]


def table(page: str, header: str) -> list[list[str]]:
    """Returns the rows of the only table of a page with this header, its first row included."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    (start,) = (at for at, line in enumerate(lines) if line == f"| {header} |")
    end = lines.index("", start)
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[start:end]]


@pytest.mark.parametrize(("page", "header", "quote"), TABLES, ids=[each[1] for each in TABLES])
def test_a_table_quotes_its_results(page, header, quote):
    columns, _, *rows = table(page, header)
    assert rows
    wrong = {}
    for row in rows:
        cells = dict(zip(columns, row, strict=True))
        for column, cell in list(cells.items())[1:]:
            expected = quote(row[0], column, cells)
            if expected is not None and cell.replace("**", "") != expected:
                wrong[row[0], column] = f"{cell}, measured {expected}"
    assert not wrong
