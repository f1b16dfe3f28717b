"""Whole pipelines from a teacher to a report.

`distill` trains the best student within a query budget, and `compare` compares strategies at the
same budget. `run_demo` trains a teacher, and compares students of its decisions.
"""

from db3kd.pipelines.comparison.compare import Comparison, compare
from db3kd.pipelines.demo import run_demo
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.distillation.distill import DistillResult, distill

__all__ = [
    "Comparison",
    "DistillResult",
    "DistillSettings",
    "compare",
    "distill",
    "run_demo",
]
