"""Tables as Markdown."""

import pytest

from db3kd.report.tables import NO_VALUE, markdown_table, mean_and_deviation


@pytest.mark.parametrize(
    ("shares", "shown"),
    [
        ([0.80, 0.82, 0.84], "82.0 ± 2.0"),
        ([0.861, 0.862, 0.863], "86.2 ± 0.1"),
        ([0.5], "50.0"),
        ([], NO_VALUE),
    ],
)
def test_shares_are_shown_as_their_mean_and_sample_deviation_in_percent(shares, shown):
    assert mean_and_deviation(shares) == shown


def test_columns_of_numbers_align_right_and_vertical_bars_are_escaped():
    table = markdown_table(("method", "queries"), [("KL(q|p)", "1,486")])

    assert table.splitlines() == [
        "| method | queries |",
        "| --- | ---: |",
        r"| KL(q\|p) | 1,486 |",
    ]
