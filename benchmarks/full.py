"""Runs every benchmark with the arguments that its committed result was made with.

    python -m benchmarks.full --quick                          # minutes; `make bench` runs this
    python -m benchmarks.full --mnist DIR --fashion DIR        # hours: all runs but those in colour
    python -m benchmarks.full --colour DIR --only colour       # hours: those
    python -m benchmarks.full --list                           # each run, its command and its time

DIR is a folder of IDX files; for --colour it is one of benchmarks.colour.fetch. Without --mnist,
runs that need few images use the 5,000 MNIST images that come with a dependency. A run that already
has a result is skipped unless --again is given. A run that fails does not stop the others, but the
exit status is then 1.
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

from benchmarks.common.formatting import duration
from benchmarks.common.record import RESULTS

ROOT = Path(__file__).parents[1]
SERVERS = ".venv-servers/bin/python"

_GREY = (("fashion", "fashion-mnist"), ("mnist", "mnist"))
"""The options of the grey data sets, and the names of these in results."""

_TWO_QUERIES = "--per-sample 2 --strategies auto sd augmented decisions"
"""Strategies at two queries per image."""

_TWO_STUDENTS = "--students lenet5-half lenet5-fifth"

MODULES: dict[str, tuple[str, int, str]] = {
    "peers-quick": ("peers", 5, "--teacher-model lenet5 --pairs 10 {few}"),
    "distances-mnist": ("peers.distances", 1, "{mnist_or_few}"),
    "candidates-mnist": ("peers.starting_points", 20, "{mnist_or_few} --threads 1"),
    "candidates-fashion-mnist": ("peers.starting_points", 20, "{fashion} --threads 1"),
    # LeNet-5 gets one thread: some peers ask for a single image at a time, and waking a second
    # core for it makes them slower. Large networks get fewer pairs, because these peers then take
    # milliseconds a query.
    "peers-mnist": ("peers", 8, "--teacher-model lenet5 --pairs 50 --threads 1 {mnist_or_few}"),
    "peers-fashion-mnist": ("peers", 8, "--teacher-model lenet5 --pairs 50 --threads 1 {fashion}"),
    "peers-linear": (
        "peers", 2, "--teacher-model linear --pairs 50 --threads 1 {mnist_data} {teacher:linear}",
    ),
    "peers-alexnet": (
        "peers", 30, "--teacher-model alexnet {fashion_data} {teacher:alexnet} --teacher-epochs 2 "
        "--candidate-pool 10000 --pairs 10 --budgets 50 100 250 500 1000",
    ),
    "peers-resnet18": (
        "peers", 15, "--teacher-model resnet18 --pairs 3 --candidate-pool 200 --starts 3 "
        "--budgets 50 100 250 500 --white-box-steps 100",
    ),
    "growth": ("systems.growth", 5, ""),
    "targets-fashion-mnist": ("students.targets", 20, "{fashion}"),
    "targets-generated": (
        "students.targets", 15, "--data generated --images 1000 --targets 1 5 10 20 "
        "{teacher:generated}",
    ),
    # Both students train in one run, so that labels and augmented decisions are made once. Every
    # class is searched for 1,000 images; for more images, the three nearest classes.
    **{
        f"students-{data}-{images}": (
            "students", minutes, f"{{{name}}} --student lenet5-half lenet5-fifth --steps 2000 "
            f"--precision bf16 --scale-students 2 --images {images} --queries-per-pair {queries}",
        )
        for name, data in _GREY
        for images, minutes, queries in (
            (1000, 60, "250 1000 4000"),
            (5000, 50, "250 1000 --targets 3 --scale-steps 400 --surrogate-queries-per-pair 100"),
            (20000, 40, "100 --targets 3 --scale-steps 400 --surrogate-queries-per-pair 100"),
        )
    },
    **{
        f"budgets-{data}": (
            "students.budgets", 60, f"{{{name}}} --threads 1 --steps 1500 --per-sample 2 10 "
            "--strategies auto augmented sd decisions --white-box",
        )
        for name, data in _GREY
    },
    "budgets-fashion-mnist-12000": (
        "students.budgets", 180, "{fashion} --threads 1 --steps 12000 --per-sample 256 "
        "--strategies auto augmented --white-box",
    ),
    # Two queries per image, with teachers that the benchmark trains itself.
    "budgets-few-mnist": (
        "students.budgets", 45, "{mnist} --threads 1 --steps 1500 --images 300 "
        f"{_TWO_QUERIES} --white-box",
    ),
    "budgets-few-fashion-mnist": (
        "students.budgets", 60, "{fashion} --threads 1 --steps 1500 --images 1000 "
        f"{_TWO_QUERIES} --white-box",
    ),
    **{
        f"budgets-{images}-{data}{ending}": (
            "students.budgets", minutes, f"{{{name}}} --threads 1 --images {images} {arguments} "
            "--white-box --seeds 1",
        )
        for images, ending, minutes, arguments in (
            (1000, "", 90, "--steps 1500 --per-sample 2 10 50 256 "
             f"{_TWO_STUDENTS} --strategies auto augmented bd sd decisions"),
            (5000, "", 15, f"--steps 1500 {_TWO_QUERIES}"),
            # `distill` trains for 6,000 steps by default on so few answers.
            *(
                (count, "-6000", 120, "--steps 6000 --per-sample 2 10 50 256 "
                 f"{_TWO_STUDENTS} --strategies auto augmented sd decisions")
                for count in (300, 1000, 5000)
            ),
        )
        for name, data in _GREY
    },
    # With today's augmented images, which have no noise; those before were measured with noise.
    "budgets-fashion-mnist-6000": (
        "students.budgets", 120, "{fashion} --threads 1 --steps 6000 --images 1000 "
        "--per-sample 2 10 50 --strategies auto augmented",
    ),
    "budgets-two-queries-fashion-mnist-6000": (
        "students.budgets", 80, "{fashion} --threads 1 --steps 6000 --images 300 "
        f"{_TWO_STUDENTS} {_TWO_QUERIES} --seeds 3",
    ),
    "budgets-300-bd-fashion-mnist-6000": (
        "students.budgets", 15, "{fashion} --threads 1 --steps 6000 --images 300 "
        "--per-sample 50 256 --strategies bd --seeds 3",
    ),
    "budgets-mnist-6000": (
        "students.budgets", 60, "{mnist} --threads 1 --steps 6000 --images 5000 "
        f"--per-sample 256 {_TWO_STUDENTS} --strategies auto augmented --seeds 1",
    ),
    **{
        f"budgets-bd-{data}-6000": (
            "students.budgets", 30, f"{{{name}}} --threads 1 --steps 6000 --per-sample 50 256 "
            f"{_TWO_STUDENTS} --strategies bd --seeds 3",
        )
        for name, data in _GREY
    },
    **{
        f"budgets-without-proxies-{data}-6000": (
            "students.budgets", 90, f"{{{name}}} --threads 1 --steps 6000 --images 300 1000 5000 "
            f"--per-sample 10 50 256 {_TWO_STUDENTS} --strategies auto --proxies 0 --seeds 1 "
            "--runs runs/budgets-without-proxies --answers-of runs/budgets",
        )
        for name, data in _GREY
    },
    **{
        f"budgets-zero-shot-{data}-{steps}": (
            "students.budgets", minutes, f"{{{name}}} --threads 1 --steps {steps} --images 1000 "
            f"--per-sample {per_sample} --strategies zero-shot --seeds 3",
        )
        for name, data in _GREY
        for steps, per_sample, minutes in ((6000, 20, 30), (12000, 100, 25))
    },
    **{
        f"budgets-zero-shot-without-proxies-{data}-6000": (
            "students.budgets", 12, f"{{{name}}} --threads 1 --steps 6000 --images 1000 "
            "--per-sample 20 --strategies zero-shot --proxies 0 --seeds 3",
        )
        for name, data in _GREY
    },
    "proxies-fashion-mnist": (
        "students.proxies", 10, "{fashion} --threads 1 --images 1000 --per-sample 2 4 10",
    ),
    "taught-fashion-mnist": (
        "students.taught", 30, "{fashion} --threads 1 --students lenet5-fifth --per-sample 50",
    ),
    **{
        f"extraction-{kind}{data}": (
            "extraction", minutes, f"{{{name}}} --threads 1 --steps 1500 {arguments}",
        )
        for name, data in _GREY
        for kind, minutes, arguments in (
            ("", 120, "--images 60000 --budgets 250 1000 5000 --seeds 3"),
            ("without-images-", 60, "--images 0 --budgets 20000"),
        )
    },
    "tables": ("students.tables", 20, ""),
    "zero-shot-mnist": (
        "students.zero_shot", 180, "curve {mnist_or_few} --queries 20000 100000",
    ),
    "zero-shot-fashion-mnist": (
        "students.zero_shot", 180, "curve {fashion} --queries 20000 100000",
    ),
    "zero-shot-fashion-mnist-long": (
        "students.zero_shot", 240, "curve {fashion} --steps 12000 --queries 20000 100000 400000 "
        "--effort 10 --labelled 20000 100000 --queries-per-pair 20",
    ),
    "zero-shot-ablation": (
        "students.zero_shot", 60, "ablation {fashion} --queries 50000 --queries-per-pair 20 "
        "--steps 1500",
    ),
    # A student of ResNet-8's size takes a tenth of a second a step on one core.
    "peers-colour-photos": (
        "peers", 15, "{photos} --pairs 50 --threads 1 --candidate-pool 2000 --starts 5 "
        "--budgets 50 100 250 500 --attacks 'db3kd BD' 'db3kd MBD' 'db3kd MBD, resnet8' "
        "'Foolbox HopSkipJump 25' 'ART HopSkipJump 25'",
    ),
    "budgets-colour-photos": (
        "students.budgets", 30, "{photos} --threads 1 --steps 1000 --students resnet8-half "
        "--images 1000 --per-sample 4 --strategies decisions sd augmented auto --seeds 1",
    ),
    "budgets-300-colour-photos": (
        "students.budgets", 60, "{photos} --threads 1 --steps 1000 --students resnet8-half "
        "--images 300 --per-sample 4 --strategies sd decisions augmented auto --seeds 3",
    ),
    "budgets-zero-shot-colour-photos": (
        "students.budgets", 20, "{photos} --threads 1 --steps 1000 --students resnet8-half "
        "--images 1000 --per-sample 20 --strategies zero-shot --seeds 2",
    ),
    "zero-shot-colour-photos": (
        "students.zero_shot", 12, "curve {photos} --threads 1 --student resnet8-half --steps 1000 "
        "--queries 20000 --seeds 1",
    ),
    "teacher-share": (
        "systems.teacher_share", 5, "{mnist_or_few} --among 2000 --queries-per-pair 200 "
        "--threads 2",
    ),
    "memory-bd": ("systems.memory", 8, "{mnist} --sizes 20000 60000"),
    "pictures": ("systems.pictures", 10, ""),
    "crashes": ("systems.crashes", 15, "--images 600 --queries-per-pair 40"),
    "interrupts": ("systems.interrupts", 5, ""),
    "journal-share": (
        "systems.journal_share", 5, "{mnist_or_few} --among 2000 --queries-per-pair 200 "
        "--threads 1",
    ),
    "result-memory": ("systems.result_memory", 3, ""),
    "workers": ("systems.workers", 8, "{mnist_or_few}"),
    "serving": ("systems.serving", 10, ""),
}  # fmt: skip
"""By the name of the result: module, minutes on two cores, and arguments."""

TIMED: dict[str, tuple[str, int, str]] = {
    "ops": ("ops/test_ops.py", 4, ""),
    # On one thread, which is CPU time: also a machine with other work can measure these.
    "ops-queries": (
        "ops/test_ops.py", 2,
        "(bracket or soft_labels or (probe_queries and low)) "
        "and thread and not threads and not numpy",
    ),
    "labelling": ("systems/test_labelling.py", 1, ""),
}  # fmt: skip
"""By the name of the result: a file for pytest-benchmark, minutes, and the tests that it picks."""

QUICK = {"ops", "labelling", "peers-quick"}


@dataclass(frozen=True)
class Run:
    """One command and the result that it writes.

    Attributes:
        name: The name of the result, without ".json".
        command: Arguments of the Python interpreter.
        minutes: How long it takes on two cores, roughly.
        missing: What the run needs and this machine lacks; empty if nothing.
    """

    name: str
    command: tuple[str, ...]
    minutes: int
    missing: str = ""

    @property
    def result(self) -> Path:
        """The file that the run writes."""
        return RESULTS / f"{self.name}.json"


def runs(
    mnist: str | None, fashion: str | None, colour: str | None, teachers: Path
) -> Iterator[Run]:
    """Yields all runs, in the order in which they are made.

    The data sets are folders, or None if they were not given; `teachers` holds trained teachers, or
    gets them.
    """
    for name, (file, minutes, picked) in TIMED.items():
        written = str(RESULTS / f"{name}.json")
        arguments = ("--quiet", "--benchmark-json", written, *(("-k", picked) if picked else ()))
        yield Run(name, ("-m", "pytest", f"benchmarks/{file}", *arguments), minutes)

    def teacher(name: str) -> str:
        return f"--teacher {shlex.quote(str(teachers / name))}.safetensors"

    def data(name: str, folder: str | None) -> str:
        return f"--data {shlex.quote(folder or 'DIR')} {teacher(name)}"

    few = data("mnist5k", "mnist5k")
    fields = {
        "{few}": few,
        "{mnist}": data("mnist", mnist),
        "{mnist_or_few}": data("mnist", mnist) if mnist else few,
        "{mnist_data}": f"--data {shlex.quote(mnist or 'mnist5k')}",
        "{fashion}": data("fashion-mnist", fashion),
        "{photos}": data("colour-photos", f"{colour or 'DIR'}/colour-photos.npz")
        + " --teacher-model resnet8",
        "{fashion_data}": f"--data {shlex.quote(fashion or 'DIR')}",
        **{f"{{teacher:{kind}}}": teacher(kind) for kind in ("linear", "alexnet", "generated")},
    }
    for name, (module, minutes, template) in MODULES.items():
        filled = template
        for field, value in fields.items():
            filled = filled.replace(field, value)
        command = ("-m", f"benchmarks.{module}", *shlex.split(filled), "--save", name)
        yield Run(name, command, minutes, _missing(name, template, mnist, fashion, colour))


def main() -> None:
    """Runs what the command line asks for."""
    options = _options()
    chosen = [
        run
        for run in runs(options.mnist, options.fashion, options.colour, Path(options.teachers))
        if options.only in run.name and (run.name in QUICK or not options.quick)
    ]
    if options.list:
        for run in chosen:
            print(_description(run))
        return
    outcomes = {run.name: execute(run, options.again) for run in chosen}
    print("\n".join(f"{name:32} {outcome}" for name, outcome in outcomes.items()))
    sys.exit(any(outcome.startswith("FAILED") for outcome in outcomes.values()))


def execute(run: Run, again: bool) -> str:
    """Executes a run unless something is missing or it has its result.

    Returns:
        What happened, in words, beginning with "FAILED" if the run failed.
    """
    if run.missing:
        return f"skipped: needs {run.missing}"
    if run.result.exists() and not again:
        return "skipped: has its result"
    before = run.result.stat().st_mtime_ns if run.result.exists() else None
    print(f"--- {run.name}: {shlex.join(run.command)}", flush=True)
    paths = [str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")]
    environment = {
        "DB3KD_SERVERS": str(ROOT / SERVERS),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    begun = time.monotonic()
    done = subprocess.run([sys.executable, *run.command], cwd=ROOT, env=environment)
    elapsed = duration(time.monotonic() - begun)
    if done.returncode:
        return f"FAILED with status {done.returncode} after {elapsed}"
    if not run.result.exists() or run.result.stat().st_mtime_ns == before:
        return f"FAILED: wrote no {run.result.name}"
    return f"done in {elapsed}"


def _missing(
    name: str, template: str, mnist: str | None, fashion: str | None, colour: str | None
) -> str:
    """What a run needs and this machine or command line lacks."""
    if "{mnist}" in template and not mnist:
        return "--mnist DIR"
    if "{fashion" in template and not fashion:
        return "--fashion DIR"
    if "{photos}" in template and not colour:
        return "--colour DIR"
    if name == "workers" and not importlib.util.find_spec("ray"):
        return "ray (make ray)"
    servers = Path(os.environ.get("DB3KD_SERVERS", ROOT / SERVERS))
    if name == "serving" and not servers.exists():
        return "DB3KD_SERVERS (make test-servers)"
    return ""


def _description(run: Run) -> str:
    missing = f"  (needs {run.missing})" if run.missing else ""
    return f"{run.name:32} {run.minutes:>4} min  python {shlex.join(run.command)}{missing}"


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="only the runs that take minutes")
    options.add_argument("--mnist", metavar="DIR", help="folder of MNIST as IDX files")
    options.add_argument("--fashion", metavar="DIR", help="folder of Fashion-MNIST as IDX files")
    options.add_argument("--colour", metavar="DIR", help="folder of benchmarks.colour.fetch")
    options.add_argument(
        "--teachers", default="runs/teachers", help="folder of trained teachers (%(default)s)"
    )
    options.add_argument("--again", action="store_true", help="repeat runs that have a result")
    options.add_argument("--only", default="", metavar="TEXT", help="runs whose name has this text")
    options.add_argument("--list", action="store_true", help="list the runs and stop")
    return options.parse_args()


if __name__ == "__main__":
    main()
