"""Counts, prices, numbers and suggestions, as messages show them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db3kd.wording import also_paid, counted, did_you_mean, input_noun, money, plain_number, plural


def test_one_thing_is_written_in_the_singular():
    assert [counted(count, "query") for count in (0, 1, 2, 12_345)] == [
        *("0 queries", "1 query", "2 queries", "12,345 queries"),
    ]
    nouns = ("row", "test image", "class", "batch", "proxy", "day")
    assert [plural(noun) for noun in nouns] == [
        *("rows", "test images", "classes", "batches", "proxies", "days"),
    ]


def test_rows_of_tables_are_called_rows():
    assert [input_noun(shape) for shape in ((13,), (3, 32, 32))] == ["row", "image"]


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (0, "0.00"),
        (0.625, "0.625"),
        (0.375, "0.375"),
        (0.25, "0.25"),
        (5, "5.00"),
        (12_345.6, "12,345.60"),
        (1_000_000, "1,000,000.00"),
        (0.0001, "0.0001"),
        (0.0000875, "0.0000875"),
        (0.01875, "0.01875"),
        (1000 / 3, "333.3333"),
        (2 / 3 * 1e-7, "0.00000006667"),
    ],
)
def test_a_price_has_cents_and_the_further_digits_that_it_needs(price, text):
    assert money(price) == text


def test_the_highest_price_counts_what_was_paid_twice():
    assert also_paid(144) == ", plus at most 144 that may have been paid twice"
    paid = also_paid(144, 3_000, 0.25)
    assert paid == ", plus at most 144 that may have been paid twice, so the price is at most 0.786"
    assert also_paid(0, 3_000, 0.25) == ""


@given(st.floats(0, 1e9))
def test_a_price_is_right_to_a_hundredth_of_a_cent_or_four_digits(price):
    shown = money(price)

    assert len(shown.partition(".")[2]) >= 2
    assert math.isclose(float(shown.replace(",", "")), price, rel_tol=5.1e-4, abs_tol=5.1e-5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (45_510.4, "45,510"),
        (-1_234_567, "-1,234,567"),
        (9_999.7, "10,000"),
        (9_999.4, "9999"),
        (1_680, "1680"),
        (0.12345, "0.1235"),
        (0, "0"),
        (1e-9, "1e-09"),
        (1e20, "1e+20"),
        (math.inf, "inf"),
    ],
)
def test_an_ordinary_number_has_no_exponent(value, text):
    assert plain_number(value) == text


def test_only_a_similar_name_is_suggested():
    known = ["lenet5", "lenet5-half", "mlp"]

    assert did_you_mean("lenet5-hlf", known) == "; did you mean 'lenet5-half'?"
    assert did_you_mean("MLP", known) == "; did you mean 'mlp'?"
    assert did_you_mean("transformer", known) == did_you_mean(None, known) == ""
