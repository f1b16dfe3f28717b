"""Runs commands, and defines teachers that a command line can name."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import typer.testing
from torch import nn
from typer.testing import CliRunner

from db3kd.cli.app import app

# Each call would make the commands from their functions again.
typer.testing._get_command = cache(typer.testing._get_command)

TEACHERS = __name__
"""The module of the teachers below, as in `f"{TEACHERS}:CountingTeacher"`."""


class Result:
    """The result of a command: exit code, standard output, standard error and exception."""

    def __init__(self, *arguments: object) -> None:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.exception = result.exception


def succeed(*arguments: object) -> str:
    """Runs a command that has to succeed, and returns its standard output."""
    result = Result(*arguments)
    assert result.code == 0, result.err or repr(result.exception)
    return result.out


def fail(*arguments: object) -> str:
    """Runs a command that has to fail, and returns its error: the last line on standard error."""
    result = Result(*arguments)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert result.err.count("error: ") == 1, result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("error: "), result.err
    return last


def label_arguments(teacher: Path | str, out: Path) -> tuple[object, ...]:
    """The arguments of a small run of label with the measure BD."""
    where = ("--teacher", teacher, "--data", "digits", "--out", out)
    return ("label", *where, "--measure", "bd", "--limit", 40, "--device", "cpu")


def label(teacher: Path, out: Path, *options: object) -> str:
    """Labels 40 digits, and returns the summary."""
    return succeed(*label_arguments(teacher, out), *options)


class CountingTeacher:
    """Compares the mean of an image with a threshold, and counts its queries."""

    image_shape, classes, bounds, max_batch = (1, 8, 8), 10, (0.0, 1.0), 64
    device = torch.device("cpu")
    asked = 0

    def decide(self, images: torch.Tensor) -> torch.Tensor:
        CountingTeacher.asked += len(images)
        return (images.flatten(1).mean(1) > 0.3).long()

    def fingerprint(self) -> str:
        return "counting"


class TiringTeacher(CountingTeacher):
    """Answers the first call and fails after that."""

    def __init__(self) -> None:
        self._left = 1

    def decide(self, images: torch.Tensor) -> torch.Tensor:
        self._left -= 1
        if self._left < 0:
            raise ConnectionError("out of service")
        return super().decide(images)


class ExitingTeacher(TiringTeacher):
    """Answers the first call and ends the process after that."""

    def decide(self, images: torch.Tensor) -> torch.Tensor:
        try:
            return super().decide(images)
        except ConnectionError:
            raise SystemExit(7) from None


def make_network() -> nn.Module:
    """A student of the user's own code, for digits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def named(images: np.ndarray) -> list[str]:
    """Classifies digits by their mean, and returns class names."""
    return ["dark" if image.mean() < 0.3 else "light" for image in images]


def constant(images: np.ndarray) -> list[int]:
    return [3] * len(images)


def striped(images: np.ndarray) -> np.ndarray:
    return (images.reshape(len(images), -1)[:, ::2].mean(1) > 0.3).astype(int)


def failing(images: np.ndarray) -> None:
    raise RuntimeError("out of service")


def one_based(images: np.ndarray) -> np.ndarray:
    return 1 + np.arange(len(images)) % 10
