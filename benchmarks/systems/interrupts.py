"""Measures what Ctrl-C and `kill -9` at random moments cost a run with a served teacher.

A server answers a limited number of queries a second and counts the images that it computes, which
are paid for even if the client is gone. One run is labelled without a stop. Other runs are stopped
at random moments by SIGINT or SIGKILL and resumed until they finish. After each stop, the server's
count is compared with the answers in the run folder. The difference may grow by `batch * in_flight`
at most, and labels must equal those of the run without a stop to the bit.

    PYTHONPATH=.:tests/helpers python -m benchmarks.systems.interrupts --save interrupts
"""

import argparse
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from served_doubles import Answer, Asked, ModelServer

from benchmarks.common.record import keep
from benchmarks.common.setting import parser, trained_teacher
from benchmarks.systems.crashes import same_run
from db3kd.data.source import Source
from db3kd.labelling.runs.planned_run import plan_source_run
from db3kd.labelling.runs.run_writer import carry_out
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.label_files import iterate_shards
from db3kd.labels.labels import LABELS
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.manifest import identity, queries_in_flight, read_manifest
from db3kd.storage.run_journals import Journals
from db3kd.teachers import ModelOverrides, RequestSettings, Teacher, open_inference_teacher

_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["db3kd.labelling.runs.run_writer", "sklearn.datasets", "pyarrow.parquet", "aiohttp"]
)

SIGNALS = {"interrupt": signal.SIGINT, "kill": signal.SIGKILL}


class LimitedServer(ModelServer):
    """Computes a limited number of images a second, one request after the other."""

    def __init__(self, teacher: Teacher, per_second: float) -> None:
        super().__init__(teacher)
        self._seconds = 1 / per_second
        self._turn = threading.Lock()

    def infer(self, asked: Asked) -> Answer | None:
        """Answers a request no faster than the limit."""
        with self._turn:
            before = self.paid
            answer = super().infer(asked)
            time.sleep((self.paid - before) * self._seconds)
        return answer

    def settled(self) -> int:
        """Images paid for, after a moment without new requests."""
        quiet = 0
        while quiet < 10:
            before = self.paid
            time.sleep(0.01)
            quiet = 0 if self._in_flight or self.paid != before else quiet + 1
        return self.paid


@dataclass(frozen=True)
class Work:
    """What each process does: it labels the first `limit` images that the seed draws.

    Attributes:
        url: The URL of the served model.
        data: The data set.
        settings: How images are labelled.
        limit: The number of images.
        requests: How requests are sent.
    """

    url: str
    data: str
    settings: LabelSettings
    limit: int
    requests: RequestSettings

    def run(self, folder: Path, stop: str | None = None, seconds: float = 0.0) -> bool:
        """Labels into `folder`; returns whether the signal `stop` ended it after `seconds`."""
        ours, theirs = _PROCESSES.Pipe(duplex=False)
        process = _PROCESSES.Process(target=_label, args=(self, folder, theirs))
        process.start()
        theirs.close()
        ours.poll(None)
        process.join(None if stop is None else seconds)
        stopped = stop is not None and process.exitcode is None
        if stop is not None and stopped:
            assert process.pid is not None
            os.kill(process.pid, SIGNALS[stop])
            process.join()
        elif process.exitcode:
            raise SystemExit(f"{folder.name}: labelling ended with status {process.exitcode}")
        return stopped


@dataclass(frozen=True)
class Stop:
    """One stop of a run.

    Attributes:
        how: One of `SIGNALS`.
        kept: Answers in the run folder.
        lost: Answers that were paid for and are not there.
        in_flight: Queries that the run's journals record as asked and unanswered.
    """

    how: str
    kept: int
    lost: int
    in_flight: int


@dataclass(frozen=True)
class Outcome:
    """A run that was stopped several times and then finished.

    Attributes:
        stops: The stops.
        paid: Queries by the server's count.
        twice: Queries beyond those of a run without a stop.
        in_flight: The bound for these in the run's manifest.
        same: Whether labels and totals equal those of a run without a stop.
    """

    stops: list[Stop]
    paid: int
    twice: int
    in_flight: int
    same: bool


def stop_often(
    work: Work, server: LimitedServer, stops: list[str], folder: Path, seconds: float, seed: int = 0
) -> Iterator[Outcome]:
    """Yields runs that were stopped in these ways, keys of `SIGNALS`, in total.

    The seed draws the moments, the last one after at most `seconds`. `folder` must exist and gets
    all files.
    """
    draw, left = random.Random(seed), list(stops)
    whole = folder / "whole"
    begun = server.settled()
    work.run(whole)
    queries = server.settled() - begun
    number = 0
    while left:
        number += 1
        run = folder / f"run-{number}"
        begun, lost_before, made = server.settled(), 0, []
        while left and work.run(run, left[0], draw.uniform(0, seconds)):
            kept, in_flight = answers_kept(run)
            lost = server.settled() - begun - kept
            made.append(Stop(left.pop(0), kept, lost - lost_before, in_flight))
            lost_before = lost
        work.run(run)
        paid = server.settled() - begun
        noted = queries_in_flight(read_manifest(run))
        yield Outcome(made, paid, paid - queries, noted, same_run(run, whole))


def answers_kept(folder: Path) -> tuple[int, int]:
    """Answers in the shards and journals of a run, and queries recorded as in flight."""
    if not holds_run(folder):
        return 0, 0
    made = read_manifest(folder)
    journals = Journals(folder.absolute(), LABELS, run=identity(made), started=made["started"])
    kept = in_flight = 0
    finished = set()
    for position, labels in iterate_shards(folder) if any(folder.glob("*.parquet")) else ():
        finished.add(journals.file(position))
        kept += int(labels.queries.sum()) - len(labels)  # decisions are counted in their journal
    for file in journals.files():
        if file not in finished:
            found = journals.read(file)
            kept += sum(len(call.answers) for call in found.calls)
            in_flight += found.in_flight
    return kept, in_flight


def _label(work: Work, folder: Path, started: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides the progress of many runs
    torch.set_num_threads(1)
    teacher = open_inference_teacher(work.url, ModelOverrides(classes=10), requests=work.requests)
    started.close()
    source = Source(work.data)
    try:
        planned = plan_source_run(
            folder, teacher, source, work.settings, limit=work.limit, resume=folder.exists()
        )
        carry_out(planned)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def main() -> None:
    """Stops runs and writes what it cost."""
    options = _options()
    trained = trained_teacher(options)
    settings = LabelSettings("bd", queries_per_pair=options.queries_per_pair, seed=1)
    requests = RequestSettings(batch=options.batch, in_flight=options.in_flight)
    allowed = options.batch * options.in_flight
    stops = ["interrupt"] * options.interrupts + ["kill"] * options.kills
    random.Random(options.seed).shuffle(stops)
    outcomes = []
    with (
        TemporaryDirectory() as folder,
        LimitedServer(trained.teacher, options.per_second) as server,
    ):
        work = Work(server.model, options.data, settings, options.images, requests)
        for outcome in stop_often(work, server, stops, Path(folder), options.seconds, options.seed):
            outcomes.append(outcome)
            print(outcome, flush=True)
    made = [stop for outcome in outcomes for stop in outcome.stops]
    lost = {how: [stop.lost for stop in made if stop.how == how] for how in SIGNALS}
    for how, each in lost.items():
        print(
            f"{len(each)} by {how}: {max(each, default=0)} answers lost at most, {sum(each)} in all"
        )
    print(
        f"{allowed} are allowed each time; {sum(outcome.same for outcome in outcomes)} of "
        f"{len(outcomes)} runs with the labels of a run without a stop"
    )
    keep(
        options,
        {
            "data": options.data,
            "teacher_accuracy": trained.accuracy,
            "images": options.images,
            "queries_per_pair": options.queries_per_pair,
            "queries_per_second": options.per_second,
            "batch": options.batch,
            "in_flight": options.in_flight,
            "allowed": allowed,
            "lost": lost,
            "same": all(outcome.same for outcome in outcomes),
            "runs": [asdict(outcome) for outcome in outcomes],
        },
    )


def _options() -> argparse.Namespace:
    options = parser(__doc__, default_data="digits")
    options.add_argument("--interrupts", type=int, default=10)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument(
        "--per-second", type=float, default=100.0, help="images that the server computes a second"
    )
    options.add_argument("--images", type=int, default=30)
    options.add_argument("--queries-per-pair", type=int, default=6)
    options.add_argument("--batch", type=int, default=8, help="images of a request")
    options.add_argument("--in-flight", type=int, default=4, help="concurrent requests")
    options.add_argument("--seconds", type=float, default=6.0, help="the latest moment of a stop")
    options.add_argument("--seed", type=int, default=0, help="draws the moments of the stops")
    return options.parse_args()


if __name__ == "__main__":
    main()
