"""Labels, pseudo samples and students are to the bit what earlier versions made of the same seeds.

The digests are over the values, not over files, so that names and formats may change. What is
searched with a teacher in float64 has the same digest on every x86-64 machine. If a network is
trained or asked, the bits depend on the kernels that torch picks for the processor; those digests
are compared only on machines that round a short training in plain PyTorch as theirs did.
"""

import hashlib
import os
import platform
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from teachers_analytic import CountingTeacher, LinearTeacher
from torch import Tensor, nn

import db3kd
from db3kd.data.augmented_images import AugmentedImages
from db3kd.labelling.settings import LabelSettings
from db3kd.pipelines import DistillSettings
from db3kd.surrogates.augmented_decisions import rows_with_clean_share
from db3kd.surrogates.queries import decide_augmented
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.teachers.base import TeacherError
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="digests are those of x86-64"
)

SHAPE = (1, 8, 8)

SEARCHED = {
    "sd": "347b727e6753c0eb",
    "bd": "6833991bafe10621",
    "mbd": "89629960b043791d",
    "mbd, two targets, a run budget": "bfa3e048a2223555",
    "mbd as published": "9d6aa822aae82da7",
    "pseudo samples": "54d42c6d0c40bb94",
}

ROUNDING = "df12446912485fcd"
"""Digest of a short training in plain PyTorch, on a machine that the digests below are of."""

TRAINED = {
    "mbd with a surrogate": "15f8b2260324ef49",
    "guided pseudo samples": "9c60c17e4ae9a312",
    "students": "9a35b0741fd66c95",
    "distillation without images": "03e65053d4068ff1",
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def digest(*tensors: Tensor) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the tensors' values."""
    content = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        content.update(f"{array.shape} {array.dtype.str}".encode())
        content.update(array.tobytes())
    return content.hexdigest()[:16]


def check(name: str, known: dict[str, str], *tensors: Tensor) -> None:
    found = digest(*tensors)
    if os.environ.get("DB3KD_PRINT_DIGESTS"):
        print(f'\n    "{name}": "{found}",')
        return
    assert found == known[name], name


def check_trained(name: str, *tensors: Tensor) -> None:
    if not os.environ.get("DB3KD_PRINT_DIGESTS") and rounding() != ROUNDING:
        pytest.skip("networks are rounded differently on this machine")
    check(name, TRAINED, *tensors)


@cache
def rounding() -> str:
    """Digest of a short training that uses nothing of db3kd but a model of plain layers."""
    torch.manual_seed(0)
    images = torch.rand(48, 1, 8, 8)
    classes = (images.flatten(1).sum(1) > 32).long()
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(images), classes).backward()
        optimizer.step()
    return digest(*model.parameters())


def teacher() -> LinearTeacher:
    generator = torch.Generator().manual_seed(11)
    weights = torch.randn(5, 64, generator=generator)
    return LinearTeacher(weights - weights.mean(1, keepdim=True), torch.zeros(5), SHAPE)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(12))


def values(labels: db3kd.Labels) -> tuple[Tensor, ...]:
    made = db3kd.with_soft_labels(labels, scale=2.0, temperature=4.0).soft_labels
    inverse = db3kd.with_soft_labels(labels, normalisation="inverse", temperature=20.0).soft_labels
    snapshots = [labels.snapshots[count] for count in sorted(labels.snapshots)]
    return labels.decision, labels.distances, labels.queries, made, inverse, *snapshots


SETTINGS = {
    "sd": LabelSettings(measure="sd", seed=1),
    "bd": LabelSettings(measure="bd", mixup_rounds=2, queries_per_pair=40, seed=1),
    "mbd": LabelSettings(measure="mbd", queries_per_pair=120, snapshots=(30, 60), seed=1),
    "mbd, two targets, a run budget": LabelSettings(targets=2, queries=4_000, seed=2),
    "mbd as published": LabelSettings.paper(queries_per_pair=300, starting_points=7, seed=3),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_labels(name, images):
    check(name, SEARCHED, *values(db3kd.label(teacher(), images, SETTINGS[name])))


def test_labels_of_a_run_that_was_stopped_and_resumed(tmp_path, images):
    class Stopping(LinearTeacher):
        left = 90

        def decide(self, images: Tensor) -> Tensor:
            self.left -= 1
            if self.left < 0:
                raise TeacherError("the server went away")
            return super().decide(images)

    known = teacher()
    stopping = Stopping(known.weights, known.bias, SHAPE, max_batch=64)
    stopping.fingerprint = known.fingerprint
    with pytest.raises(TeacherError):
        db3kd.label(stopping, images, SETTINGS["mbd"], out=tmp_path / "run")
    counting = CountingTeacher(known)
    labels = db3kd.label(counting, images, SETTINGS["mbd"], out=tmp_path / "run", resume=True)
    assert 0 < counting.total < int(labels.queries.sum())
    check("mbd", SEARCHED, *values(labels))


def test_labels_with_a_surrogate(images):
    torch.manual_seed(3)
    surrogate = db3kd.build_model("lenet5-fifth", SHAPE, 5)
    settings = LabelSettings(queries_per_pair=100, seed=1)
    labels = db3kd.label(teacher(), images[:12], settings, surrogate=surrogate)
    check_trained("mbd with a surrogate", *values(labels))


def test_pseudo_samples():
    settings = SynthesisSettings(
        samples=60, effort=2.0, moves=Moves(count=3, length=0.2), snapshots=(1,), seed=4
    )
    made = db3kd.synthesize(teacher(), settings)
    check("pseudo samples", SEARCHED, made.pixels, made.decision, made.distance, made.moves)


def test_guided_pseudo_samples():
    acquisition = AcquisitionSettings(model="lenet5-fifth", rounds=2, steps=20, device="cpu")
    made = db3kd.synthesize(
        teacher(), SynthesisSettings(samples=80, acquisition=acquisition, seed=4)
    )
    check_trained("guided pseudo samples", made.pixels, made.decision)


def test_students(images):
    known = teacher()
    training = TrainSettings(steps=30, batch_size=16, seed=5, device="cpu")
    labels = db3kd.label(known, images, SETTINGS["bd"])
    labels = db3kd.with_soft_labels(labels, scale=2.0, temperature=4.0)
    student = db3kd.train_student(
        lambda: db3kd.build_model("lenet5-fifth", SHAPE, 5),
        images,
        labels,
        loss=db3kd.KDLoss(temperature=4.0),
        settings=training,
    )
    augmented = decide_augmented(known, AugmentedImages(images, 4, seed=6))
    other = train_classifier(
        lambda: db3kd.build_model("lenet5-fifth", SHAPE, 5),
        augmented.images,
        augmented.decisions,
        settings=replace(training, seed=7),
        rows=rows_with_clean_share(augmented.images, 0.5),
    )
    check_trained("students", *student.parameters(), *other.parameters())


def test_distillation_without_images():
    pytest.importorskip("accelerate")
    training = TrainSettings(steps=30, batch_size=16, device="cpu", seed=8)
    settings = DistillSettings(training=training, proxies=1, proxy="lenet5-fifth")
    result = db3kd.distill(teacher(), budget=120, student="lenet5-fifth", settings=settings)
    check_trained("distillation without images", *result.student.parameters())
