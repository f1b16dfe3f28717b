"""Reports with empty figures."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _empty_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves figures without drawing them, which takes a third of a run with little training.

    Those of the demo are drawn, and those of the tests of reports and commands.
    """

    def savefig(figure: Any, file: Any, *, format: str = "png", **_: Any) -> None:
        if format == "svg":
            file.write('<svg viewBox="0 0 1 1"></svg>')
        else:
            Path(file).touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
