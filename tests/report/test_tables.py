"""The table of compared methods."""

import pytest

pytest.importorskip("matplotlib")

from db3kd.distillation.methods import MethodResult
from db3kd.report import method_table

ROWS = [
    MethodResult("BD, margin", [0.80, 0.82, 0.84], [0.9, 0.9, 0.9], 1486.3),
    MethodResult("white-box KD", [0.861, 0.862, 0.863], [0.88, 0.89, 0.9], None),
]


def lines(*rows: MethodResult) -> list[str]:
    return method_table(rows).splitlines()


def test_the_table_shows_means_and_sample_deviations_in_percent():
    assert lines(*ROWS)[2] == "| BD, margin | 82.0 ± 2.0 | 90.0 ± 0.0 | 1,486 |"


def test_a_white_box_method_has_no_queries():
    assert lines(*ROWS)[3] == "| white-box KD | 86.2 ± 0.1 | 89.0 ± 1.0 | \N{EN DASH} |"


def test_one_seed_has_no_deviation_and_no_seed_has_no_mean():
    assert lines(MethodResult("CE", [0.5], [], 1))[2] == "| CE | 50.0 | \N{EN DASH} | 1 |"


def test_a_vertical_bar_in_a_name_is_escaped():
    assert r"KL(q\|p)" in method_table([MethodResult("KL(q|p)", [0.5], [0.5], 1)])
