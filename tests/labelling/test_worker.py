"""One worker of a run, without Ray."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from teachers_analytic import CountingTeacher, NearestCentroidTeacher

from db3kd.data.image_set import ImageSet
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.chunk_search import Labeller
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.workers.worker import Stopped, Worker, WorkerTask
from db3kd.labels.labels import LABELS, Labels
from db3kd.storage.manifest import make_manifest
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import TeacherError

pytest.importorskip("pyarrow")

SETTINGS = LabelSettings("bd", starting_points=3, queries_per_pair=20, query_batch_size=50)


def some_images(seed: int = 0) -> ImageSet:
    draw = torch.Generator().manual_seed(seed)
    return ImageSet.from_arrays(torch.rand(30, 1, 6, 6, generator=draw).numpy())


def teacher() -> CountingTeacher:
    centroids = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(9))
    return CountingTeacher(NearestCentroidTeacher(centroids, (1, 6, 6), max_batch=16))


def described(seed: int = 0) -> dict:
    return make_manifest(
        SETTINGS, seed=seed, teacher_fingerprint="t", classes=None, data_fingerprint="d"
    )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "run", LABELS, described()) as run:
        yield run


def task(run: RunFolder, made: CountingTeacher | None = None) -> WorkerTask:
    made = made or teacher()
    images = some_images()
    return WorkerTask(
        make_teacher=lambda: made,
        fingerprint=teacher().fingerprint(),
        images=images,
        data_fingerprint=images.fingerprint(),
        settings=SETTINGS,
        journals=run.journals,
        threads=torch.get_num_threads(),
    )


@pytest.fixture
def ready(run: RunFolder) -> Iterator[Callable[..., Worker]]:
    """Workers that are ready for a task."""
    workers = []

    def prepare(given: WorkerTask) -> Worker:
        workers.append(Worker())
        assert workers[-1].prepare(given)
        return workers[-1]

    yield prepare
    for worker in workers:
        worker.shutdown()


def label_last_ten(worker: Worker) -> Labels:
    images, asked = some_images(), teacher()
    decisions = asked.decide(images.read(torch.arange(30)))
    limits = divide_budget(SETTINGS, 30, asked.classes)
    return worker.label(20, torch.arange(20, 30), decisions, limits)


def test_a_worker_labels_its_chunk_as_the_whole_set_would_be(run, ready):
    worker = ready(task(run))

    labels = label_last_ten(worker)

    whole = label(teacher(), some_images(), SETTINGS)
    assert torch.equal(labels.distances, whole.distances[20:])
    assert torch.equal(labels.queries, whole.queries[20:])
    assert worker.answered() == int(labels.queries.sum()) - 10, "the decisions are not counted"


def test_a_worker_resumes_from_the_journal_of_another(run, ready):
    labels = label_last_ten(ready(task(run)))
    asked = teacher()

    again = label_last_ten(ready(task(run, asked)))

    assert asked.total == 0
    assert torch.equal(again.distances, labels.distances)


def test_a_worker_that_is_stopped_finishes_the_call_under_way(run, ready):
    asked = teacher()
    with run.journal("decisions", asked.classes) as journal:  # the first call has one image
        journal.ask(torch.zeros(1, dtype=torch.int64))
        journal.answer(torch.zeros(1, dtype=torch.int64))
    worker = ready(task(run, asked))
    worker.stop()

    with pytest.raises(Stopped):
        label_last_ten(worker)

    contents = run.journals.read(run.journals.file(20))
    assert contents.in_flight == 0
    assert sum(len(call.answers) for call in contents.calls) == asked.total == 16


def test_a_worker_that_cannot_reach_the_folder_writes_no_journal(run, tmp_path):
    elsewhere = replace(run.journals, folder=tmp_path / "elsewhere")
    others = RunFolder.create(tmp_path / "others", LABELS, described(seed=1))
    for journals in (elsewhere, replace(run.journals, folder=others.path)):
        worker = Worker()

        assert not worker.prepare(replace(task(run), journals=journals))
        label_last_ten(worker)

    assert not list(tmp_path.rglob("*.journal"))
    others.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"fingerprint": "0" * 64},
            r"teacher CountingTeacher: expected the same in each worker.* or .* fingerprint=",
        ),
        ({"images": some_images(1)}, "images arrays: expected the same in each worker"),
    ],
)
def test_a_worker_with_another_teacher_or_other_images_refuses(run, changes, words):
    with pytest.raises(TeacherError, match=words):
        Worker().prepare(replace(task(run), **changes))


def test_a_labeller_labels_any_samples():
    images, asked = some_images(), teacher()
    decisions = asked.decide(images.read(torch.arange(30)))
    limits = divide_budget(SETTINGS, 30, asked.classes)
    labeller = Labeller(asked, images, SETTINGS, decisions, limits)
    whole = label(teacher(), images, SETTINGS)

    index = torch.tensor([28, 3])

    assert torch.equal(labeller.label(index).distances, whole.distances[index])


def test_a_worker_searches_the_targets_that_the_run_would(run, ready):
    settings = replace(SETTINGS, targets=2)
    images, asked = some_images(), teacher()
    decisions = asked.decide(images.read(torch.arange(30)))
    limits = divide_budget(settings, 30, asked.classes)
    worker = ready(replace(task(run, asked), settings=settings))

    labels = worker.label(20, torch.arange(20, 30), decisions, limits)

    whole = label(teacher(), images, settings)
    assert torch.equal(labels.searched, whole.searched[20:])
    assert torch.equal(labels.distances, whole.distances[20:])
