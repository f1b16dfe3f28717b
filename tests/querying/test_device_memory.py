"""Batches and chunks are as large as the memory of the device suggests."""

from types import SimpleNamespace

import pytest
import torch
from teachers_analytic import LateTeacher, NearestCentroidTeacher, RaisingTeacher

from db3kd.labelling import chunk_search
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.querying.device_memory import memory_limit
from db3kd.querying.search import fitting_batch_size
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import TeacherError

GIB = 2**30
PHOTO = (3, 224, 224)


@pytest.fixture
def gpu(monkeypatch):
    """Returns a function that gives the device "cuda" so much memory."""

    def of(total_memory: int) -> str:
        properties = SimpleNamespace(total_memory=total_memory)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return "cuda"

    return of


def test_a_limit_is_a_share_of_a_gpu_but_at_least_that_of_a_cpu(gpu):
    assert memory_limit("cpu", 1000, 0.5) == 1000
    assert memory_limit(torch.device(gpu(8000)), 1000, 0.5) == 4000
    assert memory_limit(gpu(1000), 1000, 0.5) == 1000


def test_a_batch_on_a_gpu_is_limited_by_memory_alone(gpu):
    assert fitting_batch_size(2048, (1, 28, 28)) == 2048
    assert fitting_batch_size(2048, PHOTO) == 445
    # All 92,160 probes of 2,304 pairs are one batch, which were 46 of 2,048.
    assert fitting_batch_size(2048, (1, 28, 28), gpu(80 * GIB)) > 2304 * 40
    assert fitting_batch_size(2048, PHOTO, gpu(80 * GIB)) == 80 * GIB // 64 // (4 * 3 * 224 * 224)
    assert fitting_batch_size(1, (10**10,), gpu(80 * GIB)) == 1


def test_a_chunk_of_photos_keeps_a_gpu_busy(gpu):
    teacher = SimpleNamespace(device="cpu", image_shape=PHOTO, classes=10)
    on_cpu = chunk_search.chunk_size(teacher, LabelSettings())
    teacher.device = gpu(80 * GIB)
    assert on_cpu <= 3 and chunk_search.chunk_size(teacher, LabelSettings()) >= 20


def test_a_run_keeps_its_shards_when_it_is_resumed_on_another_device(tmp_path, limit_chunks):
    draw = torch.Generator().manual_seed(0)
    teacher = NearestCentroidTeacher(torch.rand(4, 1, 6, 6, generator=draw), (1, 6, 6))
    images = torch.rand(24, 1, 6, 6, generator=draw)
    settings = LabelSettings(starting_points=3, queries_per_pair=20)
    whole = label(teacher, images, settings)

    limit_chunks(5)
    with pytest.raises(TeacherError):
        label(RaisingTeacher(teacher, 500), images, settings, out=tmp_path / "run")
    limit_chunks(7)
    resumed = label(LateTeacher(teacher), images, settings, out=tmp_path / "run", resume=True)

    assert torch.equal(resumed.distances, whole.distances)
    assert torch.equal(resumed.queries, whole.queries)
    assert read_manifest(tmp_path / "run")["settings"]["samples_per_shard"] == 5
    assert len(list((tmp_path / "run").glob("*.parquet"))) == 5
