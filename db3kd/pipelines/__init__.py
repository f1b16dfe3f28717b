"""Whole pipelines: the zero-shot path and the demo."""

from db3kd.pipelines.demo import run_demo
from db3kd.pipelines.demo_settings import DemoSettings
from db3kd.pipelines.zero_shot import ZeroShotSettings, run_zero_shot

__all__ = ["DemoSettings", "ZeroShotSettings", "run_demo", "run_zero_shot"]
