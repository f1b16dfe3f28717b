"""Held-out pseudo samples: no other sample, and no network that chooses images, depends on them."""

import pytest
import torch
from synthesis_cases import WALK, linear, same
from teachers_analytic import CountingTeacher, RaisingTeacher
from torch import Tensor

from db3kd.data.pseudo_samples import PseudoSamples, load_pseudo_samples
from db3kd.synthesis import acquisition, synthesis
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.sample_run import write_samples
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.starts import Starts, make_starts
from db3kd.synthesis.synthesize_images import synthesize
from db3kd.teachers import TeacherError

HELD_OUT = 10
CHOOSES = AcquisitionSettings(
    "linear", rounds=4, pool=4, students=1, steps=40, learning_rate=0.03, device="cpu"
)
PRESETS = {
    "guided": {"samples": 120, "acquisition": CHOOSES},
    "first round below the held-out images": {
        "samples": 40,
        "acquisition": AcquisitionSettings("linear", rounds=8, steps=40, device="cpu"),
    },
    "guided and moved": {"samples": 60, "acquisition": CHOOSES, "moves": WALK},
    "plain": {"samples": 60},
    "balanced": {"samples": 60, "effort": 4.0},
    "moved": {"samples": 40, "moves": WALK, "starting_points": 5},
    "moved within a budget": {"samples": 40, "moves": WALK, "queries": 1500},
    "moved as in the paper": {"samples": 40, "moves": WALK, "starts": "paper"},
}


def settings(preset: str, **changes: object) -> SynthesisSettings:
    return SynthesisSettings(**{"held_out": HELD_OUT} | PRESETS[preset] | changes)


class OthersHeldOut:
    """Starts whose first images are inverted, while the others stay as they are."""

    def __init__(self, starts: Starts) -> None:
        self.name, self.image_shape, self._starts = starts.name, starts.image_shape, starts

    def draw(self, index: Tensor) -> Tensor:
        images = self._starts.draw(index)
        images[index < HELD_OUT] = 255 - images[index < HELD_OUT]
        return images


def with_others_held_out(
    monkeypatch: pytest.MonkeyPatch, plan: SynthesisSettings, bias: float = 0.0
) -> tuple[PseudoSamples, PseudoSamples]:
    """Returns the samples of a plan, and those if its first starts were other images."""
    teacher = linear()
    teacher.bias[3] -= bias
    samples = synthesize(teacher, plan)
    with monkeypatch.context() as patch:
        patch.setattr(synthesis, "make_starts", lambda *of: OthersHeldOut(make_starts(*of)))
        return samples, synthesize(teacher, plan)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_other_sample_depends_on_a_held_out_image(monkeypatch, preset):
    samples, others = with_others_held_out(monkeypatch, settings(preset))

    assert not torch.equal(samples.pixels[:HELD_OUT], others.pixels[:HELD_OUT])
    assert same(samples[HELD_OUT:], others[HELD_OUT:])


def test_mixtures_for_rare_classes_contain_no_held_out_image(monkeypatch):
    plan = settings("plain", samples=400, mixtures=1.0)

    samples, others = with_others_held_out(monkeypatch, plan, bias=2.4)

    assert (samples.start < 0).any(), "mixtures were needed"
    assert same(samples[HELD_OUT:], others[HELD_OUT:])


@pytest.mark.parametrize("preset", ["guided", "moved"])
def test_samples_depend_on_the_first_images_if_none_is_held_out(monkeypatch, preset):
    samples, others = with_others_held_out(monkeypatch, settings(preset, held_out=0))

    assert not torch.equal(samples.pixels[HELD_OUT:], others.pixels[HELD_OUT:])


@pytest.mark.parametrize("preset", PRESETS)
def test_held_out_images_are_the_first_starts_and_cost_one_query_each(preset):
    plan = settings(preset)
    teacher = CountingTeacher(linear())

    samples = synthesize(teacher, plan)

    first = torch.arange(HELD_OUT)
    assert len(samples) == plan.samples
    assert samples.start[:HELD_OUT].tolist() == first.tolist()
    starts = make_starts(plan.starts, teacher.image_shape, plan.seed)
    assert torch.equal(samples.pixels[:HELD_OUT], starts.draw(first))
    assert torch.equal(linear().decide(samples.images()), samples.decision)
    assert samples.queries[:HELD_OUT].tolist() == samples.moves[:HELD_OUT].tolist() == [0] * 10
    assert samples.status[:HELD_OUT] == ["ok"] * HELD_OUT
    if not plan.moves.count and plan.effort == 1:
        assert teacher.total == plan.samples


@pytest.mark.parametrize("preset", ["guided", "first round below the held-out images"])
def test_students_that_choose_see_no_held_out_image(monkeypatch, preset):
    seen = []
    train = acquisition.train_classifier_stably

    def note(make, images, *rest, **options):
        seen.append(images.read(torch.arange(len(images))))
        return train(make, images, *rest, **options)

    monkeypatch.setattr(acquisition, "train_classifier_stably", note)
    samples = synthesize(linear(), settings(preset))

    held_out, others = samples.images().flatten(1).split([HELD_OUT, len(samples) - HELD_OUT])
    learned = torch.cat(seen).flatten(1)
    assert torch.cdist(held_out, learned).min() > 0
    assert torch.equal(seen[-1].flatten(1), others[: len(seen[-1])])


@pytest.mark.parametrize("answered", [5, 30, 70, 119])
def test_a_resumed_run_holds_out_the_same_images(tmp_path, answered):
    plan = settings("guided")
    with pytest.raises(TeacherError):
        write_samples(RaisingTeacher(linear(max_batch=8), answered), plan, tmp_path)

    write_samples(linear(), plan, tmp_path, resume=True)

    assert same(load_pseudo_samples(tmp_path), synthesize(linear(), plan))


def test_a_run_is_not_resumed_with_more_held_out_images(tmp_path):
    write_samples(linear(), settings("plain"), tmp_path)

    with pytest.raises(ValueError, match=r"synthesis\.held_out: was 10, is 11"):
        write_samples(linear(), settings("plain", held_out=11), tmp_path, resume=True)


@pytest.mark.parametrize("budget", [1, HELD_OUT, HELD_OUT + 1])
@pytest.mark.parametrize("preset", ["guided", "plain", "moved"])
def test_a_budget_may_end_with_the_held_out_images(preset, budget):
    teacher = CountingTeacher(linear())

    samples = synthesize(teacher, settings(preset, queries=budget))

    assert len(samples) == teacher.total == budget
    assert samples.start.tolist() == list(range(budget))


def test_an_image_must_be_left_to_train_on():
    with pytest.raises(ValueError, match="held_out: expected fewer than the 20 samples, got 20"):
        SynthesisSettings(samples=20, held_out=20)
