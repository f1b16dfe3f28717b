"""Whole pipelines from a teacher to a report.

`distill` trains the best student within a query budget, and `compare` compares strategies at the
same budget. `run_zero_shot` trains students without any image: it makes pseudo samples, labels
them, trains students and compares them with baselines. `run_demo` trains a teacher, distils a
student from it and compares strategies. `AutoSurrogate` plans and trains the surrogate of a label
run, on a part of its budget.
"""

from db3kd.pipelines.auto_surrogate import AutoSurrogate
from db3kd.pipelines.comparison.compare import Comparison, compare
from db3kd.pipelines.demo.run_demo import run_demo
from db3kd.pipelines.demo.settings import DemoSettings
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.distillation.distill import DistillResult, distill
from db3kd.pipelines.teaching.time_estimate import StepTimes
from db3kd.pipelines.teaching.time_limit import time_steps
from db3kd.pipelines.zero_shot.run_zero_shot import ZeroShotResult, run_zero_shot
from db3kd.pipelines.zero_shot.settings import ZeroShotSettings
from db3kd.pipelines.zero_shot.students import train_students
from db3kd.pipelines.zero_shot.transfer_set import TransferSet, make_transfer_set

__all__ = [
    "AutoSurrogate",
    "Comparison",
    "DemoSettings",
    "DistillResult",
    "DistillSettings",
    "StepTimes",
    "TransferSet",
    "ZeroShotResult",
    "ZeroShotSettings",
    "compare",
    "distill",
    "make_transfer_set",
    "run_demo",
    "run_zero_shot",
    "time_steps",
    "train_students",
]
