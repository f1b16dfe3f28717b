"""Measures how much faster two workers label than one process, and what killing one costs.

The teacher is a LeNet-5 on one thread. A run is labelled by one process, by two workers, and by two
workers of which one is killed after the first shard. Labels and totals must be equal to the bit.
Queries paid twice must stay within the bound: the teacher's call in flight, of at most
`--max-batch` queries. The teacher counts them: it writes each call to a separate file before it
answers. The whole run is timed, including the start and end of Ray.

    python -m benchmarks.systems.workers --data DIR --teacher FILE
"""

import argparse
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common.record import keep
from benchmarks.common.setting import parser, trained_teacher
from benchmarks.systems.crashes import CallLoggingTeacher, Work, call_log, queries_asked, same_run
from db3kd.data.source import Source
from db3kd.labelling.runs.planned_run import RunExecution, plan_source_run
from db3kd.labelling.runs.run_writer import carry_out
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.workers.ray_cluster import Workers
from db3kd.models import save_model
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.teachers import Teacher, load_teacher


def label(work: Work, folder: Path, workers: int) -> float:
    """Labels into `folder` with so many workers, and returns the seconds."""
    make = partial(_logging_teacher, work.teacher, folder, work.max_batch)
    pool = Workers(workers, gpus=False, make_teacher=make) if workers > 1 else None
    start = time.perf_counter()
    execution = RunExecution(workers=pool)
    source = Source(work.data)
    planned = plan_source_run(
        folder, make(), source, work.settings, limit=work.limit, execution=execution
    )
    carry_out(planned)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Outcome:
    """One run, compared with that of one process.

    Attributes:
        workers: The number of workers.
        seconds: The time of the run.
        same: Whether labels and totals equal those of one process.
        twice: Queries beyond those of one process.
        in_flight: The run's own bound for these.
        lost: Workers that died.
    """

    workers: int
    seconds: float
    same: bool
    twice: int
    in_flight: int
    lost: int


def outcome(folder: Path, workers: int, seconds: float, one: Path) -> Outcome:
    """Compares the run in `folder` with the run of one process in `one`."""
    manifest = read_manifest(folder)
    return Outcome(
        workers=workers,
        seconds=seconds,
        same=same_run(folder, one),
        twice=queries_asked(folder) - queries_asked(one),
        in_flight=queries_in_flight(manifest),
        lost=len(manifest.get("lost_workers", [])),
    )


def kill_a_worker(folder: Path) -> None:
    """Waits until one shard is committed and another is in progress, and kills a worker."""
    while not (list(folder.glob("*.parquet")) and list(folder.glob("labels-*.journal"))):
        time.sleep(0.05)
    time.sleep(0.5)  # somewhere within a shard
    workers = [int(pid) for pid in _pids_of(folder).read_text().split() if int(pid) != os.getpid()]
    os.kill(workers[0], signal.SIGKILL)


def _logging_teacher(file: Path, folder: Path, max_batch: int) -> Teacher:
    with _pids_of(folder).open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    return CallLoggingTeacher(load_teacher(file), call_log(folder), max_batch)


def _pids_of(folder: Path) -> Path:
    """The file to which each process that makes a teacher writes its id."""
    return folder.with_suffix(".pids")


def main() -> None:
    """Measures the runs and writes the result."""
    options = _options()
    trained = trained_teacher(options)
    settings = LabelSettings(options.measure, queries_per_pair=options.queries_per_pair)
    outcomes = []
    with TemporaryDirectory() as parent:
        teacher = Path(parent) / "teacher.safetensors"
        save_model(
            teacher,
            trained.network,
            model="lenet5",
            image_shape=trained.train.image_shape,
            classes=trained.classes,
        )
        work = Work(teacher, options.data, settings, options.images, options.max_batch)
        for number in range(options.repeats):
            one, two, killed = (
                Path(parent) / f"{name}-{number}" for name in ("one", "two", "kill")
            )
            outcomes.append(outcome(one, 1, label(work, one, 1), one))
            outcomes.append(outcome(two, 2, label(work, two, 2), one))
            threading.Thread(target=kill_a_worker, args=(killed,), daemon=True).start()
            outcomes.append(outcome(killed, 2, label(work, killed, 2), one))
            for each in outcomes[-3:]:
                print(each, flush=True)
        queries = queries_asked(one)
    alone, together, _ = (
        sum(each.seconds for each in outcomes[kind::3]) / options.repeats for kind in range(3)
    )
    print(
        f"{queries:,} queries: {alone:.1f} s by one process, {together:.1f} s by two workers, "
        f"{alone / together:.2f} times the speed; labels "
        f"{'are the same' if all(each.same for each in outcomes) else 'DIFFER'}"
    )
    keep(
        options,
        {
            "data": trained.train.name,
            "teacher_accuracy": trained.accuracy,
            "images": options.images,
            "measure": options.measure,
            "queries_per_pair": options.queries_per_pair,
            "queries": queries,
            "most_twice_per_kill": options.max_batch,
            "speed_of_two_over_one": alone / together,
            "runs": [asdict(each) for each in outcomes],
        },
    )


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.set_defaults(threads=1)
    options.add_argument(
        "--images", type=int, default=2048, help="images to label; 256 are one shard"
    )
    options.add_argument("--measure", choices=("bd", "mbd"), default="bd")
    options.add_argument("--queries-per-pair", type=int, default=200)
    options.add_argument("--max-batch", type=int, default=256, help="the most queries of a call")
    options.add_argument("--repeats", type=int, default=1)
    return options.parse_args()


if __name__ == "__main__":
    main()
