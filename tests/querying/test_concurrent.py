"""Concurrent searches give the results of sequential ones, however they end."""

import contextlib
import copy
import shutil

import pytest
import torch
from teachers_analytic import CountingTeacher, LateTeacher, NearestCentroidTeacher, RaisingTeacher
from torch import nn

from db3kd.labelling.label_images import label
from db3kd.labelling.label_job import LabelJob
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import LABELS, Labels, to_table
from db3kd.ops import build_config
from db3kd.querying.concurrent import default_concurrency, run_concurrently
from db3kd.querying.driver import run, run_stepwise
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Query
from db3kd.storage.journal import Journal
from db3kd.storage.journal_format import read_journal
from db3kd.storage.manifest import queries_in_flight
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import ModuleTeacher, TeacherError

cuda = pytest.mark.skipif(
    not (build_config()["cuda"] and torch.cuda.is_available()),
    reason="no CUDA device, or no build for it",
)

SHAPE = (1, 6, 6)
CPU = torch.device("cpu")
SMALL = LabelSettings(starting_points=3, queries_per_pair=40, snapshots=(10,), query_batch_size=64)


def some_images(n=24, seed=0):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def some_teacher(max_batch=512):
    return NearestCentroidTeacher(some_images(4, seed=9), SHAPE, max_batch=max_batch)


@pytest.fixture
def small_chunks(limit_chunks):
    limit_chunks(5)


@pytest.fixture(scope="module")
def sequential():
    return label(some_teacher(), some_images(), SMALL)


def assert_same(first, second):
    for name in ("index", "decision", "distances", "queries"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert torch.equal(first.snapshots[10], second.snapshots[10])


def assert_nearly_same(on_gpu, on_cpu, tolerance=1e-4, most=0.05):
    """A last bit can change the path of a search, but only of few pairs and not by much."""
    assert torch.equal(on_gpu.isfinite(), on_cpu.isfinite())
    measured = on_cpu.isfinite() & (on_cpu > 0)
    difference = (on_gpu[measured] / on_cpu[measured] - 1).abs()
    assert (difference > tolerance).float().mean() <= 0.05, difference.sort().values[-10:]
    assert difference.max() < most


def logged_task(log, name, pauses, error=None):
    """A task that logs its steps."""
    try:
        for step in range(pauses):
            log.append(f"{name}{step}")
            yield
        if error is not None:
            raise error
        return name
    finally:
        log.append(f"{name} ends")


# Results


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("concurrent_chunks", [1, 2, 3])
def test_labels_and_queries_do_not_depend_on_the_number_of_concurrent_chunks(
    small_chunks, sequential, concurrent_chunks, late
):
    counting = CountingTeacher(some_teacher())
    teacher = LateTeacher(counting) if late else counting
    labels = label(teacher, some_images(), SMALL, concurrent_chunks=concurrent_chunks)
    assert_same(labels, sequential)
    assert counting.total == int(labels.queries.sum())


def chunks_in(folder, teacher, concurrent_chunks):
    job = LabelJob.prepare(teacher, some_images(), SMALL, concurrent_chunks=concurrent_chunks)
    return (chunk for _, chunk in job.run(folder))


def label_in(folder, teacher, concurrent_chunks):
    return list(chunks_in(folder, teacher, concurrent_chunks))


def test_a_search_calls_the_teacher_while_another_call_is_in_flight(small_chunks, tmp_path):
    teacher = LateTeacher(some_teacher())
    with RunFolder.create(tmp_path / "run", LABELS, {}) as folder:
        label_in(folder, teacher, 3)
    assert teacher.max_open == 3 and teacher.open == 0


def test_a_search_with_a_journal_waits_for_each_call_once(small_chunks, tmp_path):
    counting = CountingTeacher(some_teacher(max_batch=16))
    teacher = LateTeacher(counting)
    with RunFolder.create(tmp_path / "run", LABELS, {}) as folder:
        label_in(folder, teacher, 2)
    assert teacher.waits == len(counting.calls)


@pytest.mark.parametrize("again", [1, 2, 3])
@pytest.mark.parametrize("first", [2, 3])
def test_a_failed_run_resumes_with_any_number_of_concurrent_chunks(
    small_chunks, sequential, tmp_path, first, again
):
    counting = CountingTeacher(some_teacher(max_batch=16))
    chunks = []

    def resume(teacher, concurrent_chunks):
        with RunFolder.open(tmp_path / "run", LABELS, {"seed": 0}, resume=True) as folder:
            for chunk in chunks_in(folder, teacher, concurrent_chunks):
                folder.write_shard(int(chunk.index[0]), to_table(chunk))
                chunks.append(chunk)

    for stop in (100, 300, 500):
        with contextlib.suppress(TeacherError):
            resume(LateTeacher(RaisingTeacher(counting, stop)), first)
    resume(counting, again)

    assert_same(Labels.concat(chunks), sequential)
    assert counting.total == int(sequential.queries.sum()), "no query is asked twice"


def test_a_kill_loses_at_most_the_calls_in_flight(small_chunks, sequential, tmp_path):
    run, killed = tmp_path / "run", tmp_path / "killed"

    class Killed(LateTeacher):
        """Copies the run folder during a call: what a kill would leave behind."""

        def decide_async(self, images):
            if self.launched > 200 and self.open and not killed.exists():
                self.last_call = len(images)
                shutil.copytree(run, killed)
            return super().decide_async(images)

    teacher = Killed(some_teacher(max_batch=16))
    with RunFolder.create(run, LABELS, {"seed": 0}) as folder:
        label_in(folder, teacher, 2)

    counting = CountingTeacher(some_teacher(max_batch=16))
    with RunFolder.open(killed, LABELS, {"seed": 0}, resume=True) as folder:
        found = [folder.journals.read(file) for file in folder.journals.files()]
        lost = queries_in_flight(folder.manifest)
        chunks = label_in(folder, counting, 2)
    kept = sum(len(call.answers) for journal in found for call in journal.calls)

    assert_same(Labels.concat(chunks), sequential)
    assert kept > 150 and teacher.last_call < lost <= 2 * 16, "one call of each chunk"
    assert kept + counting.total == int(sequential.queries.sum())


# Turns


def test_tasks_take_turns_and_the_next_starts_when_one_ends():
    log = []
    tasks = (logged_task(log, name, 2) for name in "abc")
    assert list(run_concurrently(tasks, 2, CPU)) == ["a", "b", "c"]
    assert log == ["a0", "b0", "a1", "b1", "a ends", "b ends", "c0", "c1", "c ends"]


def test_results_come_in_order_although_later_tasks_end_first():
    log = []
    tasks = (logged_task(log, *task) for task in (("a", 5), ("b", 1), ("c", 1)))
    assert list(run_concurrently(tasks, 2, CPU)) == ["a", "b", "c"]
    assert log.index("c ends") < log.index("a ends")


@pytest.mark.parametrize("max_tasks", [1, 2, 3])
def test_an_error_is_raised_in_its_place_and_closes_later_tasks(max_tasks):
    log, results = [], []
    tasks = (
        logged_task(log, "a", 3),
        logged_task(log, "b", 1, ConnectionError("the line is dead")),
        logged_task(log, "c", 9),
        logged_task(log, "d", 1),
    )
    with pytest.raises(ConnectionError, match="the line is dead"):
        for result in run_concurrently(iter(tasks), max_tasks, CPU):
            results.append(result)
    assert results == ["a"]
    assert ("c ends" in log) == (max_tasks == 3) and "d0" not in log


def test_all_tasks_are_closed_if_the_caller_stops():
    log = []
    tasks = (logged_task(log, *task) for task in (("a", 1), ("b", 9), ("c", 9)))
    results = run_concurrently(tasks, 2, CPU)
    assert next(results) == "a"
    results.close()
    assert log[-1] == "b ends" and "c0" not in log


def test_an_interrupt_closes_all_tasks():
    log = []
    tasks = (
        logged_task(log, "a", 1, KeyboardInterrupt()),
        logged_task(log, "b", 9),
    )
    with pytest.raises(KeyboardInterrupt):
        list(run_concurrently(iter(tasks), 2, CPU))
    assert "b ends" in log


def test_an_error_while_closing_leaves_no_task_open_and_does_not_replace_the_first_error():
    def full_disk():
        try:
            yield
        finally:
            raise OSError("No space left on device")

    log = []
    tasks = (
        logged_task(log, "a", 0, ConnectionError("the line is dead")),
        logged_task(log, "b", 9),
        full_disk(),
    )
    results = run_concurrently(iter(tasks), 3, CPU)
    with pytest.raises(ConnectionError, match="the line is dead"):
        list(results)
    tasks = (
        logged_task(log, "d", 0),
        logged_task(log, "e", 9),
        full_disk(),
    )
    results = run_concurrently(iter(tasks), 3, CPU)
    assert next(results) == "d"
    results.close()
    assert log[-1] == "e ends"


def test_a_cpu_runs_one_search_and_a_gpu_two():
    assert default_concurrency(CPU) == 1 and default_concurrency(torch.device("cuda", 1)) == 2


def test_at_least_one_concurrent_chunk_is_required():
    with pytest.raises(
        ValueError, match="concurrent_chunks: expected an integer of at least 1, got 0"
    ):
        label(some_teacher(), some_images(), SMALL, concurrent_chunks=0)


# Answers in flight


def two_batches():
    images = some_images(8).flatten(1)
    first = yield Query(images[:4], torch.tensor([0, 0, 1, 1]))
    second = yield Query(images[4:], torch.tensor([0, 1, 1, 1]))
    return torch.cat([first, second])


def test_a_closed_task_keeps_the_answers_in_flight(tmp_path):
    ledger, reported = Ledger(torch.tensor([9, 9])), []
    late = LateTeacher(some_teacher())
    with Journal(tmp_path / "a", 4, "run") as journal:
        task = run_stepwise(two_batches(), late, ledger, reported.append, journal)
        next(task)
        task.close()
    found = read_journal(tmp_path / "a", "run")
    assert [call.answers.tolist() for call in found.calls] == [
        some_teacher().decide(some_images(8)[:4]).tolist()
    ]
    assert found.in_flight == 0 and ledger.spent.tolist() == [2, 2] and sum(reported) == 4


@pytest.mark.parametrize(("invalid_from", "spent"), [(6, [3, 3]), (3, [2, 1])])
def test_a_decision_that_turns_out_invalid_is_not_booked_nor_are_later_ones(invalid_from, spent):
    ledger, reported = Ledger(torch.tensor([9, 9])), []
    late = LateTeacher(some_teacher(), invalid_from)
    with pytest.raises(TeacherError, match="no answer") as caught:
        run(two_batches(), late, ledger, reported.append)
    assert len(caught.value.answered) == invalid_from % 4
    assert ledger.spent.tolist() == spent and sum(reported) == invalid_from


def test_an_invalid_decision_is_not_journaled(tmp_path):
    ledger = Ledger(torch.tensor([9, 9]))
    with (
        pytest.raises(TeacherError, match="no answer"),
        Journal(tmp_path / "a", 4, "run") as journal,
    ):
        teacher = LateTeacher(some_teacher(), invalid_from=6)
        run(two_batches(), teacher, ledger, journal=journal)
    answers = [call.answers.tolist() for call in read_journal(tmp_path / "a", "run").calls]
    assert sum(map(len, answers)) == 6 and ledger.spent.tolist() == [3, 3]


@pytest.mark.parametrize("concurrent_chunks", [1, 2])
def test_labels_with_a_surrogate_do_not_depend_on_when_answers_arrive(
    small_chunks, concurrent_chunks
):
    torch.manual_seed(0)
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    teachers = some_teacher(), LateTeacher(some_teacher())
    at_once, late = (
        label(
            teacher, some_images(), SMALL, concurrent_chunks=concurrent_chunks, surrogate=surrogate
        )
        for teacher in teachers
    )
    assert_same(late, at_once)


@cuda
@pytest.mark.parametrize("with_journals", [False, True])
def test_labels_on_a_gpu_equal_those_on_a_cpu(small_chunks, tmp_path, with_journals):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double()
    on_cpu = label(ModuleTeacher(network, SHAPE, 4), some_images(), SMALL)
    teacher = ModuleTeacher(network, SHAPE, 4, device="cuda", max_batch=100)
    found = []
    for concurrent_chunks in (1, 2, 3):
        with RunFolder.create(tmp_path / str(concurrent_chunks), LABELS, {}) as folder:
            kept = folder if with_journals else None
            found.append(Labels.concat(label_in(kept, teacher, concurrent_chunks)))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])
    assert_nearly_same(found[0].distances, on_cpu.distances)


@cuda
def test_a_surrogate_moves_to_the_device_of_the_teacher(small_chunks):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double()
    surrogate = copy.deepcopy(network).float()
    on_cpu, on_gpu = (
        label(
            ModuleTeacher(network, SHAPE, 4, device=device),
            some_images(),
            SMALL,
            surrogate=surrogate,
        )
        for device in ("cpu", "cuda")
    )
    assert next(surrogate.parameters()).is_cpu
    # The path also depends on gradients, which have larger differences than decisions.
    assert_nearly_same(on_gpu.distances, on_cpu.distances, tolerance=1e-2, most=0.2)


@cuda
def test_each_task_has_its_own_stream():
    device, streams = torch.device("cuda"), []

    def task():
        streams.append(torch.cuda.current_stream(device))
        yield

    list(run_concurrently((task() for _ in range(2)), 2, device))
    assert streams[0] != streams[1] and torch.cuda.default_stream(device) not in streams
