"""Whole pipelines from a teacher to a report.

`distill` trains the best student within a query budget, and `compare` compares strategies at the
same budget. `run_zero_shot` trains students without any image: it makes pseudo samples, labels
them, trains students and compares them with baselines. `run_demo` trains a teacher, distils a
student from it and compares strategies. `AutoSurrogate` plans and trains the surrogate of a label
run, on a part of its budget.
"""

from db3kd.pipelines.auto_surrogate import AutoSurrogate
from db3kd.pipelines.comparison.compare_strategies import Comparison, compare
from db3kd.pipelines.demo.pipeline import run_demo
from db3kd.pipelines.demo.settings import DemoSettings
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.distillation.distill_student import DistillResult, distill
from db3kd.pipelines.teaching.step_times import StepTimes
from db3kd.pipelines.teaching.training_time import time_steps
from db3kd.pipelines.zero_shot.pipeline import ZeroShotResult, run_zero_shot
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
