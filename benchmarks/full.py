"""Every benchmark with the arguments its result is kept with, one after another.

    python -m benchmarks.full --quick                          # minutes: what `make bench` runs
    python -m benchmarks.full --mnist DIR --fashion DIR        # hours: all of them
    python -m benchmarks.full --list                           # what there is, and what it takes

DIR are folders of IDX files; without --mnist, the 5,000 images that come with db3kd stand in where
they can. A run whose result is there already is left out unless --again is given. A run that fails
does not end the others; the exit status is 1 then.
"""

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.markdown import duration
from benchmarks.record import RESULTS

ROOT = Path(__file__).parent.parent
SERVERS = ".venv-servers/bin/python"


@dataclass(frozen=True)
class Run:
    """One command and the result it keeps.

    Attributes:
        name: of the result, without ".json".
        command: arguments of this Python.
        minutes: about how long it takes on two cores; None where nobody has measured it.
        quick: whether it is part of `--quick`.
        lacks: what is missing to run it; empty where nothing is.
    """

    name: str
    command: tuple[str, ...]
    minutes: int | None
    quick: bool = False
    lacks: str = ""

    @property
    def result(self) -> Path:
        return RESULTS / f"{self.name}.json"


@dataclass(frozen=True)
class Data:
    """A data set and the teacher trained on it. folder: None where it was not given."""

    name: str
    folder: str | None
    teachers: Path

    @property
    def lacks(self) -> str:
        return "" if self.folder else f"--{self.name.partition('-')[0]} DIR"

    def options(self) -> tuple[str, ...]:
        return self._options(self.name, self.folder or "DIR")

    def or_few(self) -> tuple[str, ...]:
        """The same, of the images that come with db3kd where no folder was given."""
        return self.options() if self.folder else self.few()

    def few(self) -> tuple[str, ...]:
        return self._options("mnist5k", "mnist5k")

    def _options(self, name: str, data: str) -> tuple[str, ...]:
        return ("--data", data, "--teacher", str(self.teachers / f"{name}.safetensors"))


def runs(mnist: Data, fashion: Data) -> Iterator[Run]:
    """All runs, in their order."""
    own = mnist.or_few()
    yield _timed("ops", "test_ops.py", 4)
    yield _timed("labelling", "test_labelling.py", 1)
    yield _run("peers-quick", "peers", 5, "--teacher-kind", "lenet5", "--pairs", "10",
               *mnist.few(), quick=True)  # fmt: skip

    yield _run("distances-mnist", "distances", 1, *own)
    yield _run("candidates-mnist", "candidates", 20, *own, "--threads", "1")
    yield _run("candidates-fashion-mnist", "candidates", 20, *fashion.options(), "--threads", "1",
               lacks=fashion.lacks)  # fmt: skip
    yield from _peers(mnist, fashion)
    yield _run("growth", "growth", 5)
    yield _run("targets-fashion-mnist", "targets", 20, *fashion.options(), lacks=fashion.lacks)
    yield _run("targets-generated", "targets", 15, "--data", "generated", "--images", "1000",
               "--targets", "1", "5", "10", "20",
               "--teacher", str(mnist.teachers / "generated.safetensors"))  # fmt: skip
    yield from _students(mnist, fashion)
    yield from _zero_shot(mnist, fashion)

    labelled = ("--among", "2000", "--queries-per-pair", "200")
    yield _run("teacher-share", "teacher_share", 5, *own, *labelled, "--threads", "2")
    yield _run("memory-bd", "memory", 8, *mnist.options(), "--sizes", "20000", "60000",
               lacks=mnist.lacks)  # fmt: skip
    yield _run("crashes", "crashes", 15, "--images", "600", "--queries-per-pair", "40")
    yield _run("interrupts", "interrupts", 5)
    yield _run("journal-share", "journal_share", 5, *own, *labelled, "--threads", "1")
    yield _run("workers", "workers", 8, *own, lacks=_without_module("ray"))
    yield _run("serving", "serving", 10, lacks=_without_servers())


def main() -> None:
    options = _options()
    teachers = Path(options.teachers)
    data = Data("mnist", options.mnist, teachers), Data("fashion-mnist", options.fashion, teachers)
    chosen = [
        run for run in runs(*data) if options.only in run.name and (run.quick or not options.quick)
    ]
    if options.list:
        for run in chosen:
            print(_described(run))
        return
    said = {run.name: carry_out(run, options.again) for run in chosen}
    print("\n".join(f"{name:32} {outcome}" for name, outcome in said.items()))
    sys.exit(any(outcome.startswith("FAILED") for outcome in said.values()))


def carry_out(run: Run, again: bool) -> str:
    """Runs it if it can and must be, and returns what came of it: "FAILED …" where it failed."""
    if run.lacks:
        return f"left out: needs {run.lacks}"
    if run.result.exists() and not again:
        return "left out: has its result"
    before = run.result.stat().st_mtime_ns if run.result.exists() else None
    print(f"--- {run.name}: {shlex.join(run.command)}", flush=True)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {"DB3KD_SERVERS": str(ROOT / SERVERS), **os.environ, "PYTHONPATH": path}
    begun = time.monotonic()
    done = subprocess.run([sys.executable, *run.command], cwd=ROOT, env=environment)
    took = duration(time.monotonic() - begun)
    if done.returncode:
        return f"FAILED with status {done.returncode} after {took}"
    if not run.result.exists() or run.result.stat().st_mtime_ns == before:
        return f"FAILED: wrote no {run.result.name}"
    return f"done in {took}"


def _peers(mnist: Data, fashion: Data) -> Iterator[Run]:
    """Beside a network that takes milliseconds an image, peers that ask one at a time get fewer.

    One thread beside LeNet-5: where the cores must wake each other for a single image, as some
    peers ask, two are slower.
    """
    teachers, few = mnist.teachers, ("--budgets", "50", "100", "250", "500")
    every = ("--pairs", "50", "--threads", "1")
    yield _run("peers-mnist", "peers", 8, "--teacher-kind", "lenet5", *every, *mnist.or_few())
    yield _run("peers-fashion-mnist", "peers", 8, "--teacher-kind", "lenet5", *every,
               *fashion.options(), lacks=fashion.lacks)  # fmt: skip
    own = ("--data", mnist.folder or "mnist5k", "--teacher", str(teachers / "linear.safetensors"))
    yield _run("peers-linear", "peers", 2, "--teacher-kind", "linear", *every, *own)
    own = "--data", fashion.folder or "DIR", "--teacher", str(teachers / "alexnet.safetensors")
    yield _run("peers-alexnet", "peers", 30, "--teacher-kind", "alexnet", *own,
               "--candidate-pool", "10000",
               "--teacher-epochs", "2", "--pairs", "10", *few, "1000",
               lacks=fashion.lacks)  # fmt: skip
    yield _run("peers-resnet18", "peers", 15, "--teacher-kind", "resnet18", "--pairs", "3",
               "--candidate-pool", "200", "--starts", "3", *few,
               "--white-box-steps", "100")  # fmt: skip


def _students(mnist: Data, fashion: Data) -> Iterator[Run]:
    """Both students in one run, so that labels and augmented decisions are made once.

    Every class is searched for few images, for more of them the three nearest.
    """
    both = ("--student", "lenet5-half", "lenet5-fifth", "--steps", "2000", "--precision", "bf16",
            "--scale-students", "2")  # fmt: skip
    near = ("--targets", "3", "--scale-steps", "400", "--surrogate-queries-per-pair", "100")
    sizes = ((1000, 60, ("250", "1000", "4000")), (5000, 50, ("250", "1000", *near)),
             (20_000, 40, ("100", *near)))  # fmt: skip
    for data in (fashion, mnist):
        for images, minutes, queries in sizes:
            yield _run(f"students-{data.name}-{images}", "students", minutes, *data.options(),
                       *both, "--images", str(images), "--queries-per-pair", *queries,
                       lacks=data.lacks)  # fmt: skip


def _zero_shot(mnist: Data, fashion: Data) -> Iterator[Run]:
    budgets = ("--queries", "20000", "100000")
    own, lacks = fashion.options(), fashion.lacks
    yield _run("zero-shot-mnist", "zero_shot", 180, "curve", *mnist.or_few(), *budgets)
    yield _run("zero-shot-fashion-mnist", "zero_shot", 180, "curve", *own, *budgets, lacks=lacks)
    longer = ("--steps", "12000", "--queries", "20000", "100000", "400000", "--effort", "10",
              "--labelled", "20000", "100000", "--queries-per-pair", "20")  # fmt: skip
    yield _run(
        "zero-shot-fashion-mnist-long", "zero_shot", 240, "curve", *own, *longer, lacks=lacks
    )
    yield _run("zero-shot-ablation", "zero_shot", 60, "ablation", *own, "--queries", "50000",
               "--queries-per-pair", "20", "--steps", "1500", lacks=lacks)  # fmt: skip


def _run(
    name: str,
    module: str,
    minutes: int | None,
    *options: str,
    quick: bool = False,
    lacks: str = "",
) -> Run:
    command = ("-m", f"benchmarks.{module}", *options, "--save", name)
    return Run(name, command, minutes, quick, lacks)


def _timed(name: str, file: str, minutes: int) -> Run:
    """A run of pytest-benchmark."""
    options = ("--quiet", "--benchmark-json", str(RESULTS / f"{name}.json"))
    return Run(name, ("-m", "pytest", f"benchmarks/{file}", *options), minutes, quick=True)


def _without_module(name: str) -> str:
    return "" if importlib.util.find_spec(name) else f"{name} (make {name})"


def _without_servers() -> str:
    servers = Path(os.environ.get("DB3KD_SERVERS", ROOT / SERVERS))
    return "" if servers.exists() else "DB3KD_SERVERS (make test-servers)"


def _described(run: Run) -> str:
    minutes = "?" if run.minutes is None else run.minutes
    lacks = f"  (needs {run.lacks})" if run.lacks else ""
    return f"{run.name:32} {minutes:>4} min  python {shlex.join(run.command)}{lacks}"


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="only what takes minutes")
    options.add_argument("--mnist", metavar="DIR", help="all of MNIST, as IDX files")
    options.add_argument("--fashion", metavar="DIR", help="all of Fashion-MNIST, as IDX files")
    options.add_argument("--teachers", default="runs/teachers", help="trained and kept here")
    options.add_argument("--again", action="store_true", help="also what has its result")
    options.add_argument("--only", default="", metavar="TEXT", help="runs with this in their names")
    options.add_argument("--list", action="store_true", help="only say what would be run")
    return options.parse_args()


if __name__ == "__main__":
    main()
