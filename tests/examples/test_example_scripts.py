"""Each example runs, on a small budget and with few training steps."""

import re
import runpy
import warnings
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))

BUDGETS = {
    "lightning_training": 6_000,
    "own_training_loop": 6_000,
    "zero_shot": 400,
}
"""Budgets other than 300 queries."""

PRINTED = {
    "compare_strategies": r"\| augmented",
    "lightning_training": r"agreement with the teacher: \d",
    "own_training_loop": r"accuracy on test images: \d",
    "paid_service": r"charged (\d+) queries, db3kd counted \1$",
}
"""What an example prints, if it is not the summary of `distill`."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_runs(script, tmp_path, capsys):
    if script.stem == "lightning_training":
        pytest.importorskip("lightning")
    options = {"seeds": 1} if script.stem == "compare_strategies" else {}
    with warnings.catch_warnings():
        if script.stem == "lightning_training":
            warnings.simplefilter("ignore")  # its advice for longer trainings
        runpy.run_path(str(script))["main"](
            out=tmp_path / "run", budget=BUDGETS.get(script.stem, 300), steps=20, **options
        )

    expected = PRINTED.get(script.stem, r"DistillResult\(agreement \d")
    assert re.search(expected, capsys.readouterr().out, re.MULTILINE)


def test_every_example_is_in_the_list():
    listed = re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text())
    found = [file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb")]

    assert sorted(listed) == sorted(found)
