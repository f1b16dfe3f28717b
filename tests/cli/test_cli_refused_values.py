"""Values and combinations of options that a command refuses before it asks or writes anything."""

import pytest
from command_line import TEACHERS, CountingTeacher, fail

COUNTING = ("--teacher", f"{TEACHERS}:CountingTeacher")
DIGITS = (*COUNTING, "--data", "digits")
DISTILL = ("distill", *DIGITS, "--budget", 100, "--out", "run")
COMPARE = ("compare", *DIGITS, "--budget", 100, "--out", "run")
LABEL = ("label", *DIGITS, "--out", "run")
SYNTHESIZE = ("synthesize", *COUNTING, "--out", "run")
ZERO_SHOT = ("zero-shot", *COUNTING, "--out", "run")
SURROGATE = ("surrogate", *DIGITS, "--out", "run.safetensors")
EVALUATE = ("evaluate", *DIGITS)
TEACHER = ("teacher", "--data", "digits", "--out", "teacher.safetensors")


def refused(tmp_path, monkeypatch, arguments) -> str:
    """Returns the message of a command that must neither ask nor write."""
    monkeypatch.chdir(tmp_path)
    before = CountingTeacher.asked
    message = fail(*arguments)
    assert CountingTeacher.asked == before and list(tmp_path.iterdir()) == []
    return message


@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999])
@pytest.mark.parametrize(
    "command",
    [
        DISTILL,
        (*COMPARE, "--test", "digits"),
        LABEL,
        SYNTHESIZE,
        ZERO_SHOT,
        SURROGATE,
        EVALUATE,
        TEACHER,
        ("demo", "--out", "demo"),
    ],
    ids=lambda command: command[0],
)
def test_a_seed_beyond_those_of_generators_names_its_option(tmp_path, monkeypatch, command, seed):
    message = refused(tmp_path, monkeypatch, (*command, "--seed", seed))
    assert f"error: --seed: expected an integer of at least 0 and below 2^61, got {seed}" in message


@pytest.mark.parametrize("price", ["inf", "nan", "-1"])
@pytest.mark.parametrize(
    "command", [DISTILL, COMPARE, LABEL, EVALUATE], ids=lambda command: command[0]
)
def test_a_price_is_a_finite_number(tmp_path, monkeypatch, command, price):
    options = ("--price-per-1000", price, "--dry-run")
    message = refused(tmp_path, monkeypatch, (*command, *options))
    assert "error: --price-per-1000: expected a finite number of at least 0, got" in message
