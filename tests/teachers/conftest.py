"""Interpreters in which fingerprints are computed again."""

from collections.abc import Iterator

import pytest
from fresh_interpreter import FreshInterpreter


@pytest.fixture(scope="session")
def interpreters() -> Iterator[tuple[FreshInterpreter, FreshInterpreter]]:
    """Two that order sets of strings in different ways."""
    both = FreshInterpreter(1), FreshInterpreter(2)
    yield both
    for each in both:
        each.close()
