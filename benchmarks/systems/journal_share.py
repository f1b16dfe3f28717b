"""Measures the journal's share of a labelling run, and how fast the journal is replayed.

The run and each call of the journal in it are timed. Then the run is repeated from the journals
without the teacher, as a resume would do after a kill at the very end.

    python -m benchmarks.systems.journal_share --data DIR --teacher FILE
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.record import keep
from benchmarks.systems.timed_run import timed_run, timed_run_parser
from db3kd.data.image_set import ImageSet
from db3kd.labelling.label_images import label_chunks
from db3kd.labelling.labels import LABELS
from db3kd.labelling.settings import LabelSettings
from db3kd.storage.journal import Journal
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import Teacher


class Stopwatch:
    """Sums the seconds spent in some methods of a class."""

    def __init__(self, owner: type, methods: Sequence[str]) -> None:
        self.seconds = 0.0
        for name in methods:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable) -> Callable:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


@dataclass(frozen=True)
class Share:
    """Seconds of a run, of the journal within it and of its replay; queries and bytes written."""

    wall: float
    in_journal: float
    share: float
    replay: float
    queries: int
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.share:.2%} of {self.wall:.1f} s in the journal; {self.queries:,} queries, "
            f"{self.bytes / self.queries:.2f} bytes each; replayed in {self.replay:.1f} s"
        )


def measure(
    watch: Stopwatch, teacher: Teacher, images: ImageSet, settings: LabelSettings, index: Tensor
) -> Share:
    """Labels the images at `index`, and then again from the journals."""
    with TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", LABELS, {})
        before = watch.seconds
        start = time.perf_counter()
        parts = list(
            label_chunks(teacher, images, settings, index=index, folder=run, progress=False)
        )
        wall = time.perf_counter() - start
        in_journal = watch.seconds - before
        written = sum(file.stat().st_size for file in run.path.glob("*.journal"))
        start = time.perf_counter()
        again = list(
            label_chunks(
                _SilentTeacher(teacher), images, settings, index=index, folder=run, progress=False
            )
        )
        replay = time.perf_counter() - start
        run.close()
    for part, replayed in zip(parts, again, strict=True):
        if not torch.equal(part.distances, replayed.distances):
            raise SystemExit("the replayed distances differ")
    queries = sum(int(part.queries.sum()) for part in parts) + len(images) - len(index)
    return Share(wall, in_journal, in_journal / wall, replay, queries, written)


class _SilentTeacher:
    """Looks like another teacher, and fails if it is asked."""

    def __init__(self, teacher: Teacher) -> None:
        self.image_shape, self.classes = teacher.image_shape, teacher.classes
        self.bounds, self.max_batch = teacher.bounds, teacher.max_batch
        self.device = teacher.device

    def decide(self, images: Tensor) -> Tensor:
        raise AssertionError("a replay asks no teacher")

    def fingerprint(self) -> str:
        raise AssertionError("a replay asks no teacher")


def main() -> None:
    """Measures the runs and writes the result."""
    options = _options()
    run = timed_run(options)
    settings = LabelSettings("mbd", queries_per_pair=options.queries_per_pair)
    watch = Stopwatch(Journal, ("__init__", "take", "ask", "answer", "sync"))
    shares = []
    for _ in range(options.repeats):
        shares.append(measure(watch, run.teacher, run.images, settings, run.index))
        print(f"mbd: {shares[-1]}", flush=True)
    keep(options, run.facts | {"runs": [asdict(share) for share in shares]})


def _options() -> argparse.Namespace:
    return timed_run_parser(__doc__).parse_args()


if __name__ == "__main__":
    main()
