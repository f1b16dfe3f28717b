"""Whole pipelines from a teacher to a report.

`run_zero_shot` trains students without any image: it makes pseudo samples, labels them, trains
students and compares them with baselines. `run_demo` trains a teacher and compares students of a
few labelled images with their baselines and with students without images.
"""

from db3kd.pipelines.demo import run_demo
from db3kd.pipelines.demo_settings import DemoSettings
from db3kd.pipelines.transfer_set import TransferSet, make_transfer_set
from db3kd.pipelines.zero_shot import ZeroShotResult, run_zero_shot
from db3kd.pipelines.zero_shot_settings import ZeroShotSettings
from db3kd.pipelines.zero_shot_students import train_students

__all__ = [
    "DemoSettings",
    "TransferSet",
    "ZeroShotResult",
    "ZeroShotSettings",
    "make_transfer_set",
    "run_demo",
    "run_zero_shot",
    "train_students",
]
