"""Label runs that are planned and carried out in one call."""

from typing import Any

from db3kd.labelling.runs.planned_run import plan_source_run
from db3kd.labelling.runs.run_writer import carry_out
from db3kd.labelling.runs.totals import Totals


def write_run(*arguments: Any, **options: Any) -> Totals:
    """Makes or continues the run of these arguments of `plan_source_run`."""
    return carry_out(plan_source_run(*arguments, **options))
