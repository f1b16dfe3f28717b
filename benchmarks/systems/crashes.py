"""Measures what SIGKILL at random moments costs a labelling run that is resumed each time.

One run is labelled without a stop. Other runs are killed after a random share of its time and
resumed until they finish; this repeats until `--kills` processes were killed. Labels must be equal
to the bit. Queries paid twice must stay within the bound: for each kill the teacher's call in
flight, of at most `--max-batch` queries. The teacher counts them: it writes each call to a separate
file before it answers.

    python -m benchmarks.systems.crashes --kills 50
"""

import argparse
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.common.record import keep
from benchmarks.common.setting import parser, trained_teacher
from db3kd.data.source import Source
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.labelling.runs.planned_run import plan_source_run
from db3kd.labelling.runs.run_writer import carry_out
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.label_files import load_labels
from db3kd.models import save_model
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.teachers import Teacher, load_teacher

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["db3kd.labelling", "sklearn.datasets", "pyarrow.parquet"])


class CallLoggingTeacher:
    """A teacher that appends the size of each call to a file, which survives a kill."""

    def __init__(self, teacher: Teacher, file: Path, max_batch: int) -> None:
        self._teacher = teacher
        self.image_shape, self.classes = teacher.image_shape, teacher.classes
        self.bounds, self.max_batch = teacher.bounds, max_batch
        self.device = teacher.device
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def decide(self, images: Tensor) -> Tensor:
        """Logs the call and asks the teacher."""
        os.write(self._file, f"{len(images)}\n".encode())
        return self._teacher.decide(images)

    def fingerprint(self) -> str:
        """The fingerprint of the teacher."""
        return self._teacher.fingerprint()


@dataclass(frozen=True)
class Work:
    """What each process does: it labels the first `limit` images that the seed draws.

    Attributes:
        teacher: The weights of the teacher.
        data: The images.
        settings: How they are labelled.
        limit: How many of them.
        max_batch: The largest call of the teacher.
        surrogate: Trains the surrogate of the run; None for none.
    """

    teacher: Path
    data: str
    settings: LabelSettings
    limit: int
    max_batch: int
    surrogate: AutoSurrogate | None = None

    def start(self, folder: Path) -> tuple[BaseProcess, Connection]:
        """Starts a process that labels into `folder`; the connection ends when labelling starts."""
        ours, theirs = _PROCESSES.Pipe(duplex=False)
        process = _PROCESSES.Process(target=_label, args=(self, folder, theirs))
        process.start()
        theirs.close()
        return process, ours


@dataclass(frozen=True)
class Outcome:
    """A run that was killed several times and then finished.

    Attributes:
        shards: Shards that were committed at each kill; None if the run folder did not exist yet.
        twice: Queries beyond those of a run without a stop.
        in_flight: The run's own bound for these.
        same: Whether labels and totals equal those of a run without a stop.
    """

    shards: list[int | None]
    twice: int
    in_flight: int
    same: bool


def kill_often(work: Work, kills: int, folder: Path, seed: int = 0) -> Iterator[Outcome]:
    """Yields runs that were killed `kills` times in total, at moments that the seed draws.

    `folder` must exist and gets all files.
    """
    draw = random.Random(seed)
    whole = folder / "whole"
    seconds = _finish(work, whole)
    paid = queries_asked(whole)
    number = 0
    while kills:
        number += 1
        run = folder / f"run-{number}"
        shards = []
        while kills and _killed(work, run, draw.uniform(0, seconds)):
            shards.append(len(list(run.glob("*.parquet"))) if run.exists() else None)
            kills -= 1
        _finish(work, run)
        in_flight = queries_in_flight(read_manifest(run))
        yield Outcome(shards, queries_asked(run) - paid, in_flight, same_run(run, whole))


def queries_asked(folder: Path) -> int:
    """The queries that the teacher of a run logged."""
    return sum(map(int, call_log(folder).read_text().split()))


def _label(work: Work, folder: Path, started: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides the progress of many runs
    torch.set_num_threads(1)
    teacher = CallLoggingTeacher(load_teacher(work.teacher), call_log(folder), work.max_batch)
    started.close()
    planned = plan_source_run(
        folder,
        teacher,
        Source(work.data),
        work.settings,
        limit=work.limit,
        surrogate=work.surrogate,
        resume=folder.exists(),
    )
    carry_out(planned)


def _finish(work: Work, folder: Path) -> float:
    """Labels what is left and returns the seconds."""
    process, started = work.start(folder)
    started.poll(None)
    start = time.perf_counter()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{folder.name}: labelling ended with status {process.exitcode}")
    return time.perf_counter() - start


def _killed(work: Work, folder: Path, seconds: float) -> bool:
    """Kills the labelling after so many seconds; False if labelling was faster."""
    process, started = work.start(folder)
    started.poll(None)
    process.join(seconds)
    if process.exitcode is not None:
        return False
    process.kill()
    process.join()
    return True


def call_log(folder: Path) -> Path:
    """The file in which the teacher of a run logs its calls."""
    return folder.with_suffix(".asked")


def same_run(one: Path, other: Path) -> bool:
    """Compares shards by name, which has their checksum, and by content."""
    names = [sorted(file.name for file in run.glob("*.parquet")) for run in (one, other)]
    totals = [read_manifest(run)["totals"] for run in (one, other)]
    distances = [load_labels(run).distances for run in (one, other)]
    return names[0] == names[1] and totals[0] == totals[1] and torch.equal(*distances)


def main() -> None:
    """Kills runs and writes what it cost."""
    options = _options()
    trained = trained_teacher(options)
    settings = LabelSettings("mbd", queries_per_pair=options.queries_per_pair, seed=1)
    with TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher.safetensors"
        save_model(
            teacher,
            trained.network,
            model="lenet5",
            image_shape=trained.train.image_shape,
            classes=trained.classes,
        )
        work = Work(teacher, options.data, settings, options.images, options.max_batch)
        outcomes = []
        for outcome in kill_often(work, options.kills, Path(folder), options.seed):
            outcomes.append(outcome)
            print(outcome, flush=True)
        queries = queries_asked(Path(folder) / "whole")
    killed = sum(len(outcome.shards) for outcome in outcomes)
    twice = sum(outcome.twice for outcome in outcomes)
    print(
        f"{killed} kills in {len(outcomes)} runs of {queries:,} queries: "
        f"{sum(outcome.same for outcome in outcomes)} with the same labels; {twice:,} queries paid "
        f"twice, {twice / killed:.0f} a kill, at most {options.max_batch:,} a kill are allowed"
    )
    keep(
        options,
        {
            "data": trained.train.name,
            "teacher_accuracy": trained.accuracy,
            "images": options.images,
            "queries_per_pair": options.queries_per_pair,
            "queries": queries,
            "most_twice_per_kill": options.max_batch,
            "kills": killed,
            "twice": twice,
            "same": all(outcome.same for outcome in outcomes),
            "runs": [asdict(outcome) for outcome in outcomes],
        },
    )


def _options() -> argparse.Namespace:
    options = parser(__doc__, default_data="digits")
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--queries-per-pair", type=int, default=60)
    options.add_argument("--max-batch", type=int, default=256, help="the most queries of a call")
    options.add_argument("--seed", type=int, default=0, help="draws the moments of the kills")
    return options.parse_args()


if __name__ == "__main__":
    main()
