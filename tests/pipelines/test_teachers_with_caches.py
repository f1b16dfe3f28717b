"""Runs of teachers that queries change, which new processes resume with the state at the start.

A fingerprint is therefore computed before the first query, also of the parts of a run.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fresh_code import fresh_module
from fresh_interpreter import FreshInterpreter
from resumable_cases import CLASSES, COMMANDS, SHAPE

from db3kd.storage.manifest import read_manifest
from db3kd.teachers import FunctionTeacher, ModuleTeacher, TeacherError

pytest.importorskip("pyarrow")

TEXT = """
import collections
import torch
from torch import nn

CACHE, SEEN, SIZES = {}, [], collections.Counter()
COUNTS = torch.zeros(1)
left, CLASSES = 0, 3


def scores(x):
    global left
    left -= len(x)
    if left < 0:
        raise OSError("the service is down")
    SEEN.append(len(x))
    SIZES[len(x)] += 1
    COUNTS.add_(1)
    CACHE[float(x.sum())] = x
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(x[0].numel(), CLASSES, generator=generator)
    return x.flatten(1) @ (weights - weights.mean(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls, self.sizes, self.last = 0, [], None
        self.register_buffer("mean", torch.zeros(1), persistent=False)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.sizes.append(len(x))
        self.last = x
        self.mean.copy_(x.mean())
        self.count += 1
        return scores(x)


def f(array):
    return scores(torch.from_numpy(array)).argmax(1).numpy()
"""


def teacher_with(kind: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a teacher as a new process has it, which fails after a number of images."""
    module = fresh_module(TEXT, "with_caches", monkeypatch)
    module.left = limit
    if kind == "function":
        return FunctionTeacher(module.f, SHAPE, CLASSES, max_batch=8)
    return ModuleTeacher(module.Net(), SHAPE, CLASSES, max_batch=8)


@pytest.mark.parametrize("kind", ["function", "module"])
@pytest.mark.parametrize("run", COMMANDS)
def test_a_run_is_resumed_by_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., object], kind: str
) -> None:
    for limit, resume in ((30, False), (60, True)):
        with pytest.raises(TeacherError, match="the service is down"):
            run(teacher_with(kind, limit, monkeypatch), tmp_path / "run", resume=resume)
    run(teacher_with(kind, 10**6, monkeypatch), tmp_path / "run", resume=True)
    run(teacher_with(kind, 0, monkeypatch), tmp_path / "run", resume=True)  # asks nothing
    fresh = teacher_with(kind, 0, monkeypatch).fingerprint()
    manifests = [read_manifest(file.parent) for file in tmp_path.rglob("_manifest.json")]
    assert manifests and {each["teacher"] for each in manifests} == {fresh}


def test_the_command_line_resumes_a_run_in_a_new_process(tmp_path):
    pytest.importorskip("sklearn")
    made = "\nimport db3kd\nteacher = db3kd.FunctionTeacher(f, (1, 8, 8), CLASSES, max_batch=8)\n"
    (tmp_path / "with_caches.py").write_text(TEXT.replace("0, 3", "0, 10") + made)
    given = "--teacher with_caches:teacher --data digits --limit 60 --measure bd --budget 400"

    def label(interpreter: FreshInterpreter, limit: int, *options: str) -> str:
        arguments = ["db3kd", "label", *given.split(), "--out", str(tmp_path / "run"), *options]
        return interpreter.run(
            "import runpy, sys, with_caches\n"
            f"sys.argv, with_caches.left = {arguments!r}, {limit}\n"
            "try:\n    runpy.run_module('db3kd', run_name='__main__')\n"
            "except SystemExit as end:\n    print(len(with_caches.CACHE) > 3, end.code)",
            tmp_path,
        ).splitlines()[-1]  # fmt: skip

    with closing(FreshInterpreter(1)) as interpreter:
        assert label(interpreter, 100) == "True 1"
        assert label(interpreter, 1000, "--resume") == "True 0"
