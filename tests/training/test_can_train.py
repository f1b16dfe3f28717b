"""What torch cannot train here is refused before anything is paid for."""

import pytest
import torch
from teachers_analytic import ConstantTeacher, CountingTeacher

import db3kd
from db3kd.data.source import Source
from db3kd.pipelines.label_distillation import LabelTraining
from db3kd.surrogates.files import prepare_surrogate
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.training.process import check_can_train

SHAPE = (1, 8, 8)
IMAGES = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))
CUDA = db3kd.TrainSettings(steps=2, device="cuda")
SURROGATE = db3kd.SurrogateSettings("linear", training=CUDA)
DISTILL = {"budget": 100, "student": "linear", "settings": db3kd.DistillSettings(training=CUDA)}
CALLS = {
    "distill": lambda teacher, _: db3kd.distill(teacher, IMAGES, **DISTILL),
    "compare": lambda teacher, _: db3kd.compare(teacher, IMAGES, seeds=1, **DISTILL),
    "make_surrogate": lambda teacher, _: db3kd.make_surrogate(teacher, IMAGES, SURROGATE),
    "surrogate": lambda teacher, out: prepare_surrogate(
        out.with_suffix(".safetensors"), teacher, Source("digits"), SURROGATE, limit=20
    ),
    "label": lambda teacher, out: db3kd.label(
        teacher, IMAGES, surrogate=db3kd.AutoSurrogate("linear", training=CUDA), out=out
    ),
    "synthesize": lambda teacher, _: db3kd.synthesize(
        teacher,
        db3kd.SynthesisSettings(
            samples=20, acquisition=AcquisitionSettings("linear", device="cuda")
        ),
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_query_is_sent_if_training_needs_a_gpu_that_is_not_there(call, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    teacher, out = CountingTeacher(ConstantTeacher(0, SHAPE, 3)), tmp_path / "run"
    with pytest.raises(ValueError, match=r"^device: 'cuda' needs CUDA"):
        CALLS[call](teacher, out)
    assert teacher.total == 0 and not out.exists()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_query_is_sent_if_torch_computes_no_gradients(call, mode, tmp_path):
    teacher, out = CountingTeacher(ConstantTeacher(0, SHAPE, 3)), tmp_path / "run"
    with mode(), pytest.raises(ValueError, match=r"^training needs gradients, .* torch\.no_grad"):
        CALLS[call](teacher, out)
    assert teacher.total == 0 and not out.exists()


def test_no_query_is_sent_if_half_precision_needs_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    teacher = CountingTeacher(ConstantTeacher(0, SHAPE, 3))
    half = db3kd.TrainSettings(steps=2, precision="fp16")
    settings = db3kd.SurrogateSettings("linear", training=half)
    with pytest.raises(ValueError, match=r"^precision: fp16 needs a CUDA device, .* is cpu"):
        db3kd.make_surrogate(teacher, IMAGES, settings)
    assert teacher.total == 0
    with pytest.raises(ValueError, match=r"^precision: fp16 needs a CUDA device"):
        db3kd.train_classifier("linear", IMAGES, torch.arange(40) % 2, settings=half)


def test_students_of_labels_are_not_prepared_for_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^device: 'cuda' needs CUDA"):
        LabelTraining.paper(CUDA)


def test_a_gpu_has_a_number_below_that_of_all_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("auto", "cpu", "cuda", "cuda:0", "cuda:1"):
        check_can_train(device)
    with pytest.raises(ValueError, match=r"^device: .* n below 2, .* got 'cuda:2'"):
        check_can_train("cuda:2")


@pytest.mark.parametrize("device", ["gpu", None])
def test_what_is_no_device_is_refused_for_students_that_choose(device):
    with pytest.raises((TypeError, ValueError), match=r"^device: expected"):
        AcquisitionSettings(device=device)
