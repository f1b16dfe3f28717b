"""Runs one search of benchmarks.peers in a separate process, to measure its memory.

python -m benchmarks.peers.process PROBLEM OUT --attack NAME --budget N
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.peers.attacks import ATTACKS, NEEDS, Task
from benchmarks.peers.measuring_teacher import MeasuringTeacher, Trace
from benchmarks.peers.problem import Problem

_CURVE_POINTS = 40


@dataclass(frozen=True)
class Measured:
    """The measurements of one search of all pairs.

    Attributes:
        trace: Distances and seconds by queries.
        queries: Mean queries per pair, counted by the teacher.
        wall: Seconds of the search.
        in_teacher: Seconds in the teacher.
        mebibytes: The peak memory of the process.
        before: Its memory when the search began, with the libraries and the problem.
        missed: Pairs that no query hit.
        unconfirmed: Pairs whose nearest image is of another class when asked again.
        errors: Errors that ended searches early.
    """

    trace: Trace
    queries: float
    wall: float
    in_teacher: float
    mebibytes: float
    before: float
    missed: int
    unconfirmed: int
    errors: list[str]

    def facts(self) -> dict[str, Any]:
        """Everything except the trace, for a file."""
        return {
            "queries_a_pair": self.queries,
            "seconds": self.wall,
            "share_in_teacher": self.in_teacher / self.wall,
            "peak_mebibytes": self.mebibytes,
            "mebibytes_before": self.before,
            "missed": self.missed,
            "unconfirmed": self.unconfirmed,
            "errors": self.errors,
        }


def measure_apart(
    problem: Path, attack: str, counts: list[int], *, threads: int, seed: int
) -> Measured:
    """Measures an attack on a stored problem in a new process.

    The greatest of the counts of queries is the budget.

    Raises:
        CalledProcessError: If the process fails; it reports the reason on standard error.
    """
    with TemporaryDirectory() as folder:
        out = Path(folder) / "measured.pt"
        command = [sys.executable, "-m", "benchmarks.peers.process", str(problem), str(out)]
        command += ["--attack", attack, "--threads", str(threads), "--seed", str(seed)]
        command += ["--counts", *map(str, counts)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], check=True)
        saved = torch.load(out, weights_only=True)
    arrays = {name: saved.pop(name).numpy() for name in ("counts", "distance", "curve_seconds")}
    trace = Trace(arrays["counts"], arrays["distance"], arrays["curve_seconds"])
    return Measured(trace, **saved)


def measure(problem: Problem, attack: str, counts: np.ndarray, seed: int) -> Measured:
    """Measures an attack in this process."""
    teacher = problem.teacher()
    known = (problem.starts[:, 0] - problem.samples).flatten(1).norm(dim=1)
    samples = problem.samples.flatten(1)
    budget = int(counts.max())
    measuring = MeasuringTeacher(teacher, samples, problem.target, known, budget)
    for name, package in NEEDS.items():
        if attack.startswith(name):
            import_module(package)
    teacher.decide(problem.samples[:1])  # the first call is slow
    before = _memory("VmRSS")
    errors = ATTACKS[attack](Task(problem, measuring, budget, seed))
    peak = _memory("VmHWM")
    if measuring.asked != measuring.queries.sum():
        raise RuntimeError(
            f"{attack}: expected every query to belong to a pair, but the teacher answered "
            f"{measuring.asked:,} and the pairs have {measuring.queries.sum():,}"
        )
    return Measured(
        trace=measuring.trace(counts),
        queries=float(measuring.queries.mean()),
        wall=measuring.wall,
        in_teacher=measuring.in_teacher,
        mebibytes=peak,
        before=before,
        missed=measuring.missed(),
        unconfirmed=measuring.unconfirmed(),
        errors=sorted(set(errors)),
    )


def curve_counts(budgets: list[int]) -> list[int]:
    """Numbers of queries for a curve: the budgets, and others spaced evenly on a log scale."""
    spaced = np.geomspace(min(10, *budgets), max(budgets), _CURVE_POINTS).round().astype(int)
    return sorted({*budgets, *spaced.tolist()})


def _memory(field: str) -> float:
    """Resident memory of this process in MiB: now (VmRSS) or the peak (VmHWM). Linux only.

    ru_maxrss would include the peak of the parent process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"expected {field} in /proc/self/status")


def main() -> None:
    """Measures the attack that the command line names and writes it to a file."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("problem", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--attack", choices=list(ATTACKS), required=True)
    options.add_argument("--counts", type=int, nargs="+", required=True)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    problem = Problem.load(chosen.problem)
    measured = measure(problem, chosen.attack, np.array(chosen.counts), chosen.seed)
    saved: dict[str, Any] = vars(measured).copy()
    trace = saved.pop("trace")
    saved["counts"] = torch.from_numpy(trace.counts)
    saved["distance"] = torch.from_numpy(trace.distance)
    saved["curve_seconds"] = torch.from_numpy(trace.seconds)
    torch.save(saved, chosen.out)


if __name__ == "__main__":
    main()
