"""How much of a labelling run the teacher itself takes.

The run is timed as a whole, and each call of the teacher in it. Every few batches the run pauses,
its clock too, and the teacher alone is timed on the same images in the same batches; so close
together, both see the same machine. Other images would not do: uniform noise takes LeNet-5 5 to 7 %
longer than digits, which would hide as much of the run's own cost. The batch is what db3kd chooses.

    python -m benchmarks.teacher_share --data DIR --teacher FILE
"""

import time
from dataclasses import dataclass

from torch import Tensor

from benchmarks.record import keep
from benchmarks.timed_run import timed_run, timed_run_parser
from db3kd.data import ImageSet
from db3kd.labels import LabelSettings, label
from db3kd.teachers import Teacher

_TURN = 16
"""Batches of the run before the teacher alone is asked as many."""


class ReplayedTeacher:
    """A teacher that times its calls, and in pauses of the run itself alone.

    in_run: seconds of the run's calls. alone: seconds of the same calls again. paused: seconds that
    no run would have taken without this class. batches: images of each call of the run.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.image_shape, self.classes = teacher.image_shape, teacher.classes
        self.bounds, self.max_batch = teacher.bounds, teacher.max_batch
        self.device = teacher.device
        self.batches: list[int] = []
        self.in_run = self.alone = self.paused = 0.0
        self._turn: list[Tensor] = []

    def decide(self, images: Tensor) -> Tensor:
        start = time.perf_counter()
        decisions = self._teacher.decide(images)
        answered = time.perf_counter()
        self.in_run += answered - start
        self.batches.append(len(images))
        self._turn.append(images.clone())
        if len(self._turn) == _TURN:
            self.catch_up()
        self.paused += time.perf_counter() - answered
        return decisions

    def fingerprint(self) -> str:
        return self._teacher.fingerprint()

    def catch_up(self) -> None:
        """Times the teacher alone on what the run has asked since the last time."""
        for images in self._turn:
            start = time.perf_counter()
            self._teacher.decide(images)
            self.alone += time.perf_counter() - start
        self._turn.clear()


@dataclass(frozen=True)
class Timing:
    """A run's seconds: all of them, those in the teacher, and those of the teacher alone."""

    wall: float
    in_teacher: float
    teacher_alone: float
    queries: int
    batches: int
    share: float
    wall_over_alone: float
    queries_per_second: float

    @classmethod
    def of(cls, teacher: Teacher, images: ImageSet, index: Tensor, settings: LabelSettings):
        """Labels the images at `index` and times it."""
        timed = ReplayedTeacher(teacher)
        start = time.perf_counter()
        label(timed, images, settings, index=index)
        wall = time.perf_counter() - start - timed.paused
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
        )

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of {self.wall:.1f} s in the teacher; wall over teacher alone "
            f"{self.wall_over_alone:.3f}; {self.queries:,} queries, "
            f"{self.queries / self.batches:.0f} a batch, {self.queries_per_second:,.0f} a second"
        )


def main() -> None:
    options = timed_run_parser(__doc__)
    options.add_argument(
        "--measures", nargs="+", choices=("sd", "bd", "mbd"), default=["bd", "mbd"]
    )
    chosen = options.parse_args()
    run = timed_run(chosen)
    settings = {
        "sd": LabelSettings("sd"),
        "bd": LabelSettings("bd"),
        "mbd": LabelSettings("mbd", queries_per_pair=chosen.queries_per_pair),
    }
    timings = {}
    for name in chosen.measures:
        timings[name] = [
            Timing.of(run.teacher, run.images, run.index, settings[name])
            for _ in range(chosen.repeats)
        ]
        for timing in timings[name]:
            print(f"{name}: {timing}", flush=True)
    runs = {name: [vars(timing) for timing in all_] for name, all_ in timings.items()}
    keep(chosen, run.facts | {"runs": runs})


if __name__ == "__main__":
    main()
