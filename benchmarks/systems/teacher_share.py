"""Measures the teacher's share of a labelling run.

The run and each call of the teacher in it are timed. Every few batches the run and its clock pause,
and the teacher alone is timed on the same batches, so that both see the same machine. It has to be
the same images: LeNet-5 takes 5 to 7 % longer for uniform noise than for digits, which would hide
as much of the run's own cost. db3kd chooses the batch size.

CPU time of the process is recorded beside wall clock, because it is more reliable on a shared
machine. With --surrogate, runs with and without that network take turns.

    python -m benchmarks.systems.teacher_share --data DIR --teacher FILE [--surrogate FILE]
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from benchmarks.common.record import keep
from benchmarks.systems.timed_run import timed_run, timed_run_parser
from db3kd.data.image_set import ImageSet
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.teachers import ModuleTeacher, Teacher, load_teacher

_TURN = 16
"""Batches of the run between two pauses."""


class ReplayedTeacher:
    """A teacher that times its calls in a run, and repeats them alone while the run pauses.

    Attributes:
        in_run: Seconds of the calls in the run.
        alone: Seconds of the same calls when repeated.
        paused: Seconds of the pauses.
        cpu_in_run: CPU time of the calls in the run.
        cpu_paused: CPU time of the pauses.
        batches: Images of each call.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.image_shape, self.classes = teacher.image_shape, teacher.classes
        self.bounds, self.max_batch = teacher.bounds, teacher.max_batch
        self.device = teacher.device
        self.batches: list[int] = []
        self.in_run = self.alone = self.paused = self.cpu_in_run = self.cpu_paused = 0.0
        self._turn: list[Tensor] = []

    def decide(self, images: Tensor) -> Tensor:
        """Answers and times a call of the run."""
        start, cpu_start = time.perf_counter(), time.process_time()
        decisions = self._teacher.decide(images)
        answered, cpu_answered = time.perf_counter(), time.process_time()
        self.in_run += answered - start
        self.cpu_in_run += cpu_answered - cpu_start
        self.batches.append(len(images))
        self._turn.append(images.clone())
        if len(self._turn) == _TURN:
            self.catch_up()
        self.paused += time.perf_counter() - answered
        self.cpu_paused += time.process_time() - cpu_answered
        return decisions

    def fingerprint(self) -> str:
        """The fingerprint of the teacher."""
        return self._teacher.fingerprint()

    def catch_up(self) -> None:
        """Times the teacher alone on the calls since the last pause."""
        for images in self._turn:
            start = time.perf_counter()
            self._teacher.decide(images)
            self.alone += time.perf_counter() - start
        self._turn.clear()


@dataclass(frozen=True)
class Timing:
    """The times of a run.

    Attributes:
        wall: Seconds of the run.
        in_teacher: Seconds of the teacher's calls within the run.
        teacher_alone: Seconds of the same calls without the run.
        queries: Queries of the run.
        batches: Calls of the teacher.
        share: `in_teacher` over `wall`.
        wall_over_alone: `wall` over `teacher_alone`.
        queries_per_second: Queries a second of `wall`.
        cpu_a_query: CPU seconds of the run a query.
        cpu_share: The teacher's share of the CPU time.
    """

    wall: float
    in_teacher: float
    teacher_alone: float
    queries: int
    batches: int
    share: float
    wall_over_alone: float
    queries_per_second: float
    cpu_a_query: float
    cpu_share: float

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        images: ImageSet,
        index: Tensor,
        settings: LabelSettings,
        surrogate: nn.Module | None = None,
    ) -> Self:
        """Labels the images at `index` and times it."""
        timed = ReplayedTeacher(teacher)
        start, cpu_start = time.perf_counter(), time.process_time()
        label(timed, images, settings, index=index, surrogate=surrogate, progress=False)
        wall = time.perf_counter() - start - timed.paused
        cpu = time.process_time() - cpu_start - timed.cpu_paused
        timed.catch_up()
        queries = sum(timed.batches)
        return cls(
            wall=wall,
            in_teacher=timed.in_run,
            teacher_alone=timed.alone,
            queries=queries,
            batches=len(timed.batches),
            share=timed.in_run / wall,
            wall_over_alone=wall / timed.alone,
            queries_per_second=queries / wall,
            cpu_a_query=cpu / queries,
            cpu_share=timed.cpu_in_run / cpu,
        )

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of {self.wall:.1f} s in the teacher; wall over teacher alone "
            f"{self.wall_over_alone:.3f}; {self.queries:,} queries, "
            f"{self.queries / self.batches:.0f} a batch, {self.queries_per_second:,.0f} a second; "
            f"{self.cpu_a_query * 1e6:.1f} us of CPU a query, {self.cpu_share:.1%} in the teacher"
        )


def main() -> None:
    """Measures the runs and writes the result."""
    chosen = _options()
    run = timed_run(chosen)
    settings = {
        "sd": LabelSettings("sd"),
        "bd": LabelSettings("bd"),
        "mbd": LabelSettings("mbd", queries_per_pair=chosen.queries_per_pair),
    }
    searches: dict[str, tuple[LabelSettings, nn.Module | None]] = {
        name: (settings[name], None) for name in chosen.measures
    }
    if chosen.surrogate is not None:
        surrogate = load_teacher(chosen.surrogate)
        if not isinstance(surrogate, ModuleTeacher):
            raise SystemExit(f"--surrogate: expected a weight file, got {chosen.surrogate}")
        searches["mbd, surrogate"] = settings["mbd"], surrogate.module
    timings: dict[str, list[Timing]] = {name: [] for name in searches}
    for _ in range(chosen.repeats):
        for name, (search, network) in searches.items():
            timing = Timing.of(run.teacher, run.images, run.index, search, network)
            timings[name].append(timing)
            print(f"{name}: {timing}", flush=True)
    runs = {name: [vars(timing) for timing in all_] for name, all_ in timings.items()}
    keep(chosen, run.facts | {"runs": runs})


def _options() -> argparse.Namespace:
    options = timed_run_parser(__doc__)
    options.add_argument(
        "--measures", nargs="+", choices=("sd", "bd", "mbd"), default=["bd", "mbd"]
    )
    options.add_argument(
        "--surrogate", type=Path, help="weight file; another mbd run uses it as its surrogate"
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
