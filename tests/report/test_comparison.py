"""The table of compared strategies."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from db3kd.report import ComparedStudent, ComparisonRow, comparison_table, wilson_interval
from db3kd.report.comparison import UNSPENT_MARK

NONE = "\N{EN DASH}"


def student(seed: int, **known: object) -> ComparedStudent:
    given = {"queries": 1_000, "held_out": (40, 50), "accuracy": 0.8, "test_agreement": 0.9}
    return ComparedStudent(seed=seed, seconds=10.0 + seed, **(given | known))  # type: ignore[arg-type]


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]


def test_a_row_shows_means_deviations_the_price_and_the_interval_over_all_seeds():
    row = ComparisonRow(
        "auto",
        (
            student(0, accuracy=0.80, queries=1_000, held_out=(40, 50)),
            student(1, accuracy=0.82, queries=1_500, held_out=(44, 50)),
            student(2, accuracy=0.84, queries=2_000, held_out=(45, 50)),
        ),
    )
    low, high = wilson_interval(129, 150)

    head, _, shown = cells(comparison_table([row], price_per_1000=2.0))

    assert dict(zip(head, shown, strict=True)) == {
        "strategy": "auto",
        "queries": "1,500",
        "price": "3.00",
        "held-out agreement %": "86.0",
        "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}",
        "accuracy %": "82.0 ± 2.0",
        "test agreement %": "90.0 ± 0.0",
        "seconds": "11",
    }


@pytest.mark.parametrize("asked", [True, False])
def test_the_mean_on_test_images_has_an_interval_in_which_each_image_counts_once(asked):
    matches = np.arange(200) < 160
    known = {"accuracy": 0.8, "test_agreement": 0.8 if asked else None, "test_matches": matches}
    row = ComparisonRow("auto", (student(0, **known), student(1, **known)))
    low, high = wilson_interval(160, 200)

    head, _, shown = cells(comparison_table([row]))

    place = head.index("95 % interval (test)")
    assert shown[place] == f"{100 * low:.1f} to {100 * high:.1f}"
    assert head[place - 1] == ("test agreement %" if asked else "accuracy %")


def test_queries_below_the_budget_are_marked():
    rows = [ComparisonRow("sd", (student(0),), unspent="why"), ComparisonRow("bd", (student(0),))]

    _, _, first, second = cells(comparison_table(rows))

    assert first[1] == f"1,000{UNSPENT_MARK}" and second[1] == "1,000"


def test_a_column_in_which_nothing_is_known_is_left_out():
    row = ComparisonRow("auto", (student(0, accuracy=None, test_agreement=None),))

    head, *_ = cells(comparison_table([row]))

    assert head == ["strategy", "queries", "held-out agreement %", "95 % interval", "seconds"]


def test_the_reason_of_a_strategy_that_was_not_used_does_not_widen_the_table():
    rows = [ComparisonRow("auto", (student(0),)), ComparisonRow("mbd", refused="a reason " * 20)]

    shown = cells(comparison_table(rows))[3]

    assert shown == ["mbd: not used", *[NONE] * 6]
