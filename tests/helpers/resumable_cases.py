"""Small runs of all commands that can be resumed, and a teacher that can fail and be replaced."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distill_cases import QUICK, SHAPE, images

import db3kd
from db3kd.data.source import Source
from db3kd.planning import Strategy
from db3kd.surrogates.files import prepare_surrogate
from db3kd.training.settings import TrainSettings

CLASSES = 3


class Function:
    """Counts its answers, and raises before it has given more than a limit."""

    def __init__(self) -> None:
        self.answers, self.limit = 0, 10**9

    def teacher(
        self, fingerprint: str, class_names: Sequence[str] | None = None
    ) -> db3kd.FunctionTeacher:
        return db3kd.FunctionTeacher(
            self._classes, SHAPE, CLASSES, max_batch=8, fingerprint=fingerprint,
            class_names=class_names,
        )  # fmt: skip

    def _classes(self, array: np.ndarray) -> np.ndarray:
        if self.answers + len(array) > self.limit:
            raise OSError("the service is down")
        self.answers += len(array)
        generator = torch.Generator().manual_seed(5)
        weights = torch.randn(array[0].size, CLASSES, generator=generator).numpy()
        return (array.reshape(len(array), -1) @ (weights - weights.mean(0))).argmax(1)


def distill(teacher: Any, out: Path, **options: Any) -> object:
    """Asks about images and augmented images."""
    return distill_by("decisions", images(), teacher, out, **options)


def distill_distances(teacher: Any, out: Path, **options: Any) -> object:
    """Has a second folder, for the distances."""
    return distill_by("mbd", images(), teacher, out, **options)


def distill_pseudo_samples(teacher: Any, out: Path, **options: Any) -> object:
    """Has a second folder, for the pseudo samples; only this one has answers."""
    return distill_by("auto", None, teacher, out, **options)


def distill_by(
    strategy: str, data: Any, teacher: Any, out: Path, *, seed: int = 0, **options: Any
) -> object:
    budget = {"decisions": 120, "auto": 500}.get(strategy, 1500)
    return db3kd.distill(
        teacher, data, budget=budget, strategy=strategy, student="linear",
        settings=quick_settings(seed), out=out, **options,
    )  # fmt: skip


def quick_settings(seed: int) -> db3kd.DistillSettings:
    return replace(QUICK, training=replace(QUICK.training, seed=seed))


def compare(
    teacher: Any,
    out: Path,
    *,
    seed: int = 0,
    strategies: Sequence[Strategy] = ("decisions",),
    **options: Any,
) -> object:
    """Has a folder for each student."""
    return db3kd.compare(
        teacher, images(), budget=60, strategies=strategies, student="linear", seeds=2,
        settings=quick_settings(seed), out=out, test=images(), **options,
    )  # fmt: skip


def label(teacher: Any, out: Path, *, seed: int = 0, **options: Any) -> object:
    settings = db3kd.LabelSettings(measure="bd", queries=1000, seed=seed)
    return db3kd.label(teacher, images(), settings, out=out, **options)


def surrogate_settings(seed: int) -> db3kd.SurrogateSettings:
    training = TrainSettings(steps=5, device="cpu", seed=seed)
    return db3kd.SurrogateSettings("linear", 4, training=training, networks=1)


def surrogate(teacher: Any, out: Path, *, seed: int = 0, **options: Any) -> object:
    return db3kd.make_surrogate(teacher, images(), surrogate_settings(seed), out=out, **options)


def surrogate_files(
    teacher: Any, out: Path, *, seed: int = 0, resume: bool = False, **options: Any
) -> object:
    """Writes weights, a manifest beside them, and a folder of answers."""
    prepared = prepare_surrogate(
        out / "surrogate.safetensors", teacher, Source("noise"), surrogate_settings(seed),
        images=images(), resume=resume,
    )  # fmt: skip
    return prepared.write(**options)


def synthesize(teacher: Any, out: Path, *, seed: int = 0, **options: Any) -> object:
    settings = db3kd.SynthesisSettings(samples=120, seed=seed)
    return db3kd.synthesize(teacher, settings, out=out, **options)


COMMANDS = (
    *(distill, distill_distances, distill_pseudo_samples),
    *(compare, label, surrogate, surrogate_files, synthesize),
)
"""All that can be resumed."""
