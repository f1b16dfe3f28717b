"""Several workers on one run give the labels and the queries of one process."""

import importlib.util
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from label_runs import write_run

from db3kd.data.loading import load_data
from db3kd.data.source import Source
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.chunk_search import Labeller
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.labelling.runs.planned_run import RunExecution
from db3kd.labelling.runs.totals import Totals
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.workers import chunk_dispatch, ray_cluster
from db3kd.labelling.workers.chunk_dispatch import ChunkDispatcher
from db3kd.labelling.workers.ray_cluster import Workers
from db3kd.labelling.workers.worker_pool import Outcome, WorkerDiedError
from db3kd.labels.label_files import load_labels
from db3kd.labels.labels import LABELS, to_table
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import FunctionTeacher, TeacherError
from db3kd.training.settings import TrainSettings

pytest.importorskip("pyarrow")

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="needs the extra ray")

SHARD = 256  # samples


class MeanTeacher:
    """Ten classes by an image's mean; counts the queries of all processes in a file.

    Args:
        notes: The file.
        dies_once_at: The process that asks the first query beyond this many is killed.
        fails_at: Calls fail after this many queries.
        deadly: A file; while it exists, any process that asks is killed.
    """

    image_shape, classes, bounds, max_batch = (1, 8, 8), 10, (0.0, 1.0), 64
    device = torch.device("cpu")

    def __init__(
        self,
        notes: Path,
        dies_once_at: int | None = None,
        fails_at: int | None = None,
        deadly: Path | None = None,
    ) -> None:
        self.notes = notes
        self.dies_once_at = dies_once_at
        self.fails_at = fails_at
        self.deadly = deadly

    @property
    def asked(self) -> int:
        return sum(map(int, self.notes.read_text().split())) if self.notes.exists() else 0

    def decide(self, images: torch.Tensor) -> torch.Tensor:
        if self.fails_at is not None and self.asked >= self.fails_at:
            raise ConnectionError("out of service")
        with self.notes.open("a") as file:
            file.write(f"{len(images)}\n")
        if self._is_to_die():
            os.kill(os.getpid(), signal.SIGKILL)
        return (images.mean((1, 2, 3)) * 20).long() % 10

    def fingerprint(self) -> str:
        return "pixels"

    def _is_to_die(self) -> bool:
        if self.deadly is not None and self.deadly.exists():
            return True
        if self.dies_once_at is None or self.asked < self.dies_once_at:
            return False
        try:
            self.notes.with_suffix(".died").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def write(folder: Path, teacher: Any, workers: Workers | None, resume: bool = False) -> Totals:
    """Three shards, 600 decisions, and about 3,000 queries for pairs, fewer than the budget."""
    settings = LabelSettings("bd", queries=9000, query_batch_size=200)
    return write_run(
        folder,
        teacher,
        Source("digits"),
        settings,
        limit=600,
        resume=resume,
        execution=RunExecution(workers=workers),
    )


def shards(folder: Path) -> list[str]:
    """The names of shards, which hold their checksums."""
    return sorted(file.name for file in folder.glob("*.parquet"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder / "run", MeanTeacher(folder / "notes"), None)
    return folder / "run"


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray as db3kd starts it, once for all tests; its processes can import this file."""
    with pytest.MonkeyPatch.context() as patch:
        tests = Path(__file__).parent
        paths = [str(tests), str(tests.parent / "helpers"), os.environ.get("PYTHONPATH")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        with ray_cluster.connect(Workers(2)) as (ray, _):
            yield ray
    assert not ray.is_initialized(), "Ray was started here, so it is stopped here"


@needs_ray
def test_two_workers_write_the_run_of_one_and_leave_ray_as_it_was(ray, tmp_path, whole):
    teacher = MeanTeacher(tmp_path / "notes")

    totals = write(tmp_path / "run", teacher, Workers(2))

    assert shards(tmp_path / "run") == shards(whole)
    assert len(shards(whole)) == 3
    assert read_manifest(tmp_path / "run")["totals"] == read_manifest(whole)["totals"]
    assert teacher.asked == totals.queries <= 9000
    assert ray.is_initialized()
    left = {file.name for file in (tmp_path / "run").iterdir()} - set(shards(whole))
    assert left == {"_manifest.json", "_decisions.journal"}


@needs_ray
def test_workers_have_the_surrogate_that_the_run_trained(ray, tmp_path):
    surrogate = AutoSurrogate("linear", training=TrainSettings(steps=20, device="cpu"))
    few = LabelSettings(queries_per_pair=30, targets=2)
    found = {}
    for name, workers in (("here", None), ("there", Workers(1))):
        teacher = MeanTeacher(tmp_path / f"{name}.notes")
        write_run(
            tmp_path / name,
            teacher,
            Source("digits"),
            few,
            limit=300,
            surrogate=surrogate,
            execution=RunExecution(workers=workers),
        )
        found[name] = load_labels(tmp_path / name)
        trained = read_manifest(tmp_path / name)["totals"]["surrogate_queries"]
        assert teacher.asked == int(found[name].queries.sum()) + trained > trained > 2_000
    torch.testing.assert_close(found["there"].distances, found["here"].distances)
    assert torch.equal(found["there"].queries, found["here"].queries)


@needs_ray
def test_a_killed_worker_costs_its_call_in_flight(ray, tmp_path, whole):
    teacher = MeanTeacher(tmp_path / "notes", dies_once_at=3000)

    made = partial(MeanTeacher, teacher.notes, teacher.dies_once_at)
    totals = write(tmp_path / "run", teacher, Workers(1, make_teacher=made))

    assert shards(tmp_path / "run") == shards(whole)
    manifest = read_manifest(tmp_path / "run")
    assert manifest["totals"] == read_manifest(whole)["totals"]
    assert len(manifest["lost_workers"]) == 1
    assert 0 < teacher.asked - totals.queries == queries_in_flight(manifest) <= teacher.max_batch


@needs_ray
def test_a_shard_that_kills_workers_is_reported_after_the_others(ray, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(chunk_dispatch, "MAX_ATTEMPTS", 2)
    run = tmp_path / "run"
    deadly = run / f"_labels-{SHARD:010d}.journal"  # there while the second shard is at hand

    with pytest.raises(
        ChildProcessError, match=r"shard at 256: 2 workers died while labelling it.*all other"
    ):
        write(run, MeanTeacher(tmp_path / "notes", deadly=deadly), Workers(1))

    assert shards(run) == [shards(whole)[0], shards(whole)[2]]
    teacher = MeanTeacher(tmp_path / "notes")
    totals = write(run, teacher, None, resume=True)
    assert shards(run) == shards(whole), "one process resumes what workers began"
    assert teacher.asked - totals.queries == queries_in_flight(read_manifest(run)) <= 2 * 64


@needs_ray
def test_a_teacher_that_fails_ends_the_run_and_nothing_is_asked_twice(ray, tmp_path, whole):
    teacher = MeanTeacher(tmp_path / "notes", fails_at=2000)
    with pytest.raises(TeacherError, match=r"raised ConnectionError on .*: out of service"):
        write(tmp_path / "run", teacher, Workers(1))
    teacher.fails_at = None

    totals = write(tmp_path / "run", teacher, Workers(1), resume=True)

    assert shards(tmp_path / "run") == shards(whole)
    assert teacher.asked == totals.queries
    lost = queries_in_flight(read_manifest(tmp_path / "run"))
    assert 0 < lost <= 64, "the call that failed may have been paid for"


@needs_ray
def test_workers_with_another_teacher_are_refused(ray, tmp_path):
    def another() -> FunctionTeacher:
        return FunctionTeacher(np.sum, (1, 8, 8), 10, fingerprint="others")

    with pytest.raises(TeacherError, match="expected the same in each worker"):
        write(tmp_path / "run", MeanTeacher(tmp_path / "notes"), Workers(1, make_teacher=another))


@needs_ray
def test_a_teacher_that_cannot_be_pickled_is_explained(ray, tmp_path):
    teacher = MeanTeacher(tmp_path / "notes")
    teacher.connection = threading.Lock()

    with pytest.raises(TypeError, match=r"teacher: MeanTeacher cannot be pickled.*make_teacher"):
        write(tmp_path / "run", teacher, Workers(2))
    assert not (tmp_path / "run").exists() and teacher.asked == 0


class OneWorkerPool:
    """Labels in this process. The first worker ends over its chunk, and has no journal."""

    has_idle = True
    is_working = False

    def __init__(self, labeller: Labeller, run: RunFolder, end: Exception | None = None) -> None:
        self._labeller, self.run = labeller, run
        self._end = end or WorkerDiedError("power cut")
        self.without_journal: set[int] = set()
        self._outcomes: deque[Outcome | None] = deque()
        self._died = False

    def put(self, *values: Any) -> tuple:
        return ()

    def start_worker(self) -> None:
        self._died = True

    def submit(self, position: int, index: torch.Tensor) -> None:
        self.has_idle, self.is_working = False, True
        self.without_journal.add(position)
        labels = self._labeller.label(index) if self._died else self._end
        self._outcomes += [None, Outcome(position, labels, has_journal=False)]

    def answered(self) -> dict[int, int]:
        return {0: 7}

    def next_outcome(self) -> Outcome | None:
        outcome = self._outcomes.popleft()
        if outcome is not None:
            self.has_idle, self.is_working = True, False
            if isinstance(outcome.result, TeacherError):
                raise outcome.result
            self.without_journal.discard(outcome.position)
        return outcome


def labeller_of_digits(tmp_path: Path) -> tuple[Labeller, torch.Tensor]:
    images, teacher = load_data("digits"), MeanTeacher(tmp_path / "notes")
    settings = LabelSettings("bd", queries_per_pair=2)
    decisions = teacher.decide(images.read(torch.arange(len(images))))
    limits = divide_budget(settings, len(images), teacher.classes)
    return Labeller(teacher, images, settings, decisions, limits), limits


def test_what_a_worker_without_a_journal_may_have_paid_is_counted_if_its_teacher_fails(tmp_path):
    labeller, limits = labeller_of_digits(tmp_path)
    with RunFolder.create(tmp_path / "run", LABELS, {}) as run:
        pool = OneWorkerPool(labeller, run, TeacherError("out of service"))

        with pytest.raises(TeacherError, match="out of service"):
            list(ChunkDispatcher(pool, labeller, {0: torch.arange(9)}, lambda _: None).run())

        assert queries_in_flight(run.manifest) == int(limits[:9].sum())


def test_answers_without_a_journal_are_lost_and_counted_with_their_worker(tmp_path):
    labeller, limits = labeller_of_digits(tmp_path)
    counted = []
    with RunFolder.create(tmp_path / "run", LABELS, {}) as run:
        pool = OneWorkerPool(labeller, run)

        chunks = list(ChunkDispatcher(pool, labeller, {0: torch.arange(9)}, counted.append).run())

        assert queries_in_flight(run.manifest) == int(limits[:9].sum())
        run.write_shard(0, to_table(chunks[0][1]))
    assert len(chunks) == 1
    answered = int(chunks[0][1].queries.sum()) - 9
    assert counted == [7, -7, 7, answered - 7], "what is lost is counted once"


def test_without_ray_the_extra_is_named_before_any_query(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    teacher = MeanTeacher(tmp_path / "notes")
    with pytest.raises(ImportError, match=r"workers: .*pip install \"db3kd\[ray\]\""):
        write(tmp_path / "run", teacher, Workers(2))
    assert not (tmp_path / "run").exists() and teacher.asked == 0


def test_an_unreachable_cluster_is_named_and_leaves_no_folder(tmp_path, monkeypatch):
    def init(*_: Any, **__: Any) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.setitem(
        sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init)
    )
    teacher = MeanTeacher(tmp_path / "notes")
    with pytest.raises(ConnectionError, match=r"address: .* at nowhere:1.*RAY_AUTH_TOKEN"):
        write(tmp_path / "run", teacher, Workers(2, address="nowhere:1"))
    assert not (tmp_path / "run").exists() and teacher.asked == 0


def test_zero_workers_are_refused():
    with pytest.raises(ValueError, match="workers: expected"):
        Workers(0)


@pytest.mark.parametrize(
    ("gpus", "count", "share"), [(0, 3, 0), (2, 2, 1), (2, 1, 1), (2, 3, 1 / 2), (1, 3, 1 / 3)]
)
def test_gpus_are_shared_so_that_each_worker_has_one(gpus, count, share):
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0, "GPU": float(gpus)})
    assert ray_cluster.gpu_share(ray, Workers(count)) == share
    assert ray_cluster.gpu_share(ray, Workers(count, gpus=False)) == 0
