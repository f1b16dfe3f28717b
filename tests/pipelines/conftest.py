"""Reports with empty figures."""

import pytest


@pytest.fixture(autouse=True)
def _empty_figures(empty_figures: None) -> None:
    """Those of the demo are drawn, and those of the tests of reports."""
