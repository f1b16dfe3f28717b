"""Running commands, and teachers that a command line can name."""

import torch
from typer.testing import CliRunner

from db3kd.cli.app import app

TEACHERS = __name__
"""Their module: f"{TEACHERS}:CountingTeacher" is one."""


class Result:
    """What a command did: its exit code, standard output and standard error."""

    def __init__(self, *arguments: object) -> None:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.exception = result.exception


def succeed(*arguments: object) -> str:
    result = Result(*arguments)
    assert result.code == 0, result.err or repr(result.exception)
    return result.out


def fail(*arguments: object) -> str:
    """The line on standard error that a failing command ends with."""
    result = Result(*arguments)
    assert result.code == 1
    assert "Traceback" not in result.err
    assert result.err.count("error: ") == 1, result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("error: "), result.err
    return last


class CountingTeacher:
    """Says the sign of the mean, and counts what it is asked; named by the tests below."""

    image_shape, classes, bounds, max_batch = (1, 8, 8), 10, (0.0, 1.0), 64
    device = torch.device("cpu")
    asked = 0

    def decide(self, images: torch.Tensor) -> torch.Tensor:
        CountingTeacher.asked += len(images)
        return (images.flatten(1).mean(1) > 0.3).long()

    def fingerprint(self) -> str:
        return "counting"


class TiringTeacher(CountingTeacher):
    """Answers the first call, and no other."""

    def __init__(self) -> None:
        self._left = 1

    def decide(self, images: torch.Tensor) -> torch.Tensor:
        self._left -= 1
        if self._left < 0:
            raise ConnectionError("out of service")
        return super().decide(images)


def constant(images):
    return [3] * len(images)


def striped(images):
    return (images.reshape(len(images), -1)[:, ::2].mean(1) > 0.3).astype(int)


def failing(images):
    raise RuntimeError("out of service")
