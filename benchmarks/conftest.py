"""Makes pytest --benchmark-json write rows like those of the other results."""

from typing import Any

import pytest

from benchmarks.common.record import measured
from benchmarks.ops.timing import rows_of


@pytest.hookimpl
def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]
) -> None:
    """Replaces the JSON of pytest-benchmark by rows and what they were measured with."""
    rows = rows_of(output_json["benchmarks"])
    output_json.clear()
    output_json |= {"measured": measured(), "rows": rows}
