"""Pseudo samples that students of the answers so far choose."""

import pytest
import torch
from teachers_analytic import ConstantTeacher, CountingTeacher, LinearTeacher, RaisingTeacher

from db3kd.data.pseudo_samples import PseudoSamples, load_pseudo_samples
from db3kd.querying.ledger import Ledger
from db3kd.storage.manifest import read_manifest
from db3kd.synthesis import acquisition, acquisition_settings, proposals
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.collection import CollectionTask
from db3kd.synthesis.masked_mixes import mixing_weights
from db3kd.synthesis.sample_run import write_samples
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.starts import make_starts
from db3kd.synthesis.synthesize_images import synthesize
from db3kd.teachers import TeacherError

SHAPE = (1, 6, 6)


def linear(*, max_batch: int = 512, bounds: tuple[float, float] = (0.0, 1.0)) -> LinearTeacher:
    """Three classes."""
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(3, 36, generator=generator, dtype=torch.float64)
    weights -= weights.mean(1, keepdim=True)
    return LinearTeacher(weights, torch.zeros(3), SHAPE, max_batch=max_batch, bounds=bounds)


def plan(rounds: int = 3, model: str = "linear", **changes: object) -> SynthesisSettings:
    acquisition = AcquisitionSettings(
        model, rounds=rounds, pool=6, students=1, steps=60, learning_rate=0.03, device="cpu"
    )
    return SynthesisSettings(**{"samples": 90, "acquisition": acquisition} | changes)


def same(one: PseudoSamples, other: PseudoSamples) -> bool:
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.decision, other.decision)


def gaps(teacher: LinearTeacher, samples: PseudoSamples) -> torch.Tensor:
    """Between the scores of the likeliest two classes."""
    top = teacher.scores(samples.images()).topk(2, 1).values
    return top[:, 0] - top[:, 1]


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_every_sample_is_a_query_and_what_the_teacher_says_of_it(bounds):
    teacher = CountingTeacher(linear(bounds=bounds))

    samples = synthesize(teacher, plan())

    assert len(samples) == teacher.total == 90
    assert torch.equal(teacher.inner.decide(samples.images()), samples.decision)
    assert samples.start[:30].tolist() == list(range(30)), "starts as they come in the first round"
    assert (samples.start[30:] == -1).any() and (samples.start[30:] >= 30).any()


@pytest.mark.parametrize(
    ("answers", "steps"), [(1, 300), (3840, 300), (4000, 313), (12_800, 1000), (80_000, 1500)]
)
def test_students_of_few_answers_train_for_fewer_steps(answers, steps):
    assert AcquisitionSettings().steps_for(answers) == steps
    assert AcquisitionSettings(steps=60).steps_for(answers) == 60


def test_each_round_trains_by_the_answers_it_has(monkeypatch):
    trained = []
    train = acquisition.train_classifier_stably

    def note(make, images, decisions, settings, **rest):
        trained.append((len(images), settings.steps))
        return train(make, images, decisions, settings=settings, **rest)

    monkeypatch.setattr(acquisition, "train_classifier_stably", note)
    monkeypatch.setattr(acquisition_settings, "_LEAST_STEPS", 1)
    chooses = AcquisitionSettings("linear", pool=2, students=1, epochs=2, device="cpu")
    synthesize(linear(), SynthesisSettings(samples=1000, acquisition=chooses))

    assert trained == [(200, 4), (400, 7), (600, 10), (800, 13)]


def test_rare_classes_get_half_of_an_equal_weight_in_mixes():
    decisions = torch.tensor([0] * 9996 + [3] * 4)
    weight = mixing_weights(decisions)
    shares = torch.zeros(4, dtype=torch.float64).index_add(0, decisions, weight)
    roots = 9996**0.5 + 4**0.5
    assert shares.tolist() == pytest.approx([9996**0.5, 0, 0, roots / 2 / 2])


def test_mixes_of_classes_that_are_not_rare_are_weighted_by_square_roots():
    decisions = torch.tensor([0] * 900 + [1] * 100 + [2] * 400)
    weight = mixing_weights(decisions)
    shares = torch.zeros(3, dtype=torch.float64).index_add(0, decisions, weight)
    assert (shares / shares.sum()).tolist() == pytest.approx([30 / 60, 10 / 60, 20 / 60])


def test_a_class_below_a_quarter_of_an_equal_share_is_rare():
    decisions = torch.tensor([0] * 700 + [1] * 290 + [2] * 10)

    assert proposals.rare_class_counts(decisions, 4, 1000).tolist() == [0, 0, 115, 0]


def test_rare_classes_get_at_most_half_of_a_round():
    decisions = torch.arange(100).repeat_interleave(torch.tensor([9_901] + [1] * 99))

    wanted = proposals.rare_class_counts(decisions, 100, 600)

    assert wanted.tolist() == [0] + [4] * 3 + [3] * 96, "each lacks 25.5 images, and 300 are left"


def test_many_rare_classes_share_what_is_reserved():
    decisions = torch.cat([torch.zeros(681, dtype=torch.int64), torch.arange(1, 120)])

    wanted = proposals.rare_class_counts(decisions, 120, 200)

    assert wanted.sum() == 100 and wanted.max() == 1, "each lacks 1.08 images"


class Scores(torch.nn.Module):
    """Returns the first three pixels, times ten, as the logits of three classes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3] * 10


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_likely_images_of_wanted_classes_come_before_uncertain_ones(block):
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, *SHAPE), generator=random, dtype=torch.uint8)
    start = torch.arange(60)
    drawn = (proposals.PixelBatch(start[rows], pixels[rows]) for rows in start.split(block))

    chosen = proposals.choose_proposals(
        drawn, [Scores(), Scores()], 20, wanted=torch.tensor([0, 4, 0])
    )

    votes = (pixels.flatten(1)[:, :3].double() / 25.5).softmax(1)
    likely = votes[:, 1].argsort(descending=True)[:4].tolist()
    top = votes.topk(2, 1).values
    uncertain = (top[:, 0] - top[:, 1]).argsort().tolist()
    expected = likely + [each for each in uncertain if each not in likely][:16]
    assert chosen.start.tolist() == expected
    assert torch.equal(chosen.pixels, pixels[chosen.start])


def test_an_image_that_is_likely_and_uncertain_is_chosen_once():
    pixels = torch.zeros(5, *SHAPE, dtype=torch.uint8)
    drawn = iter([proposals.PixelBatch(torch.arange(5), pixels)])

    chosen = proposals.choose_proposals(drawn, [Scores()], 5, wanted=torch.tensor([2, 2, 0]))

    assert chosen.start.tolist() == [0, 1, 2, 3, 4]


def test_wanted_classes_share_no_proposal():
    pixels = torch.zeros(3, *SHAPE, dtype=torch.uint8)
    pixels.flatten(1)[:, :3] = torch.tensor([[255, 250, 0], [0, 13, 10], [100, 100, 100]])
    drawn = iter([proposals.PixelBatch(torch.arange(3), pixels)])

    chosen = proposals.choose_proposals(drawn, [Scores()], 2, wanted=torch.tensor([1, 1, 0]))

    assert chosen.start.tolist() == [0, 1], "the first has the highest probability of both classes"


def test_no_mix_is_a_copy_of_a_known_image():
    random = torch.Generator().manual_seed(0)
    known = torch.randint(0, 256, (2, *SHAPE), generator=random, dtype=torch.uint8)
    task = CollectionTask(
        starts=make_starts("mixed", SHAPE, seed=0),
        image_shape=SHAPE,
        classes=2,
        samples=200,
        held_out=0,
        bounds=(0.0, 1.0),
        seed=0,
        query_batch_size=100,
        budget=Ledger(torch.tensor([200])),
    )

    blocks = proposals.draw_proposals(task, known, torch.tensor([0, 1]), range(1), 200, 1)
    mixes = torch.cat([block.pixels[block.start < 0] for block in blocks])

    assert len(mixes) == 200
    # A mask that covers nothing shows one of the images alone.
    assert sum(any(torch.equal(mix, one) for one in known) for mix in mixes) < 10


def test_a_round_of_one_sample_without_a_choice():
    chooses = AcquisitionSettings("linear", rounds=6, pool=1, students=1, steps=60, device="cpu")

    assert len(synthesize(linear(), SynthesisSettings(samples=6, acquisition=chooses))) == 6


def test_a_rare_class_gets_more_samples_if_it_is_sought(monkeypatch):
    teacher = linear()
    teacher.bias[2] -= 3.5
    settings = plan(samples=1000, rounds=5)

    sought = torch.bincount(synthesize(teacher, settings).decision, minlength=3)
    monkeypatch.setattr(proposals, "_LEAST_CLASS_SHARE", 0.0)
    found = torch.bincount(synthesize(teacher, settings).decision, minlength=3)

    assert sought.sum() == found.sum() == 1000
    assert sought[2] >= 75, "a quarter of an equal share is 83"
    assert 0 < found[2] <= 50


def test_students_choose_images_near_the_boundary():
    chosen = synthesize(linear(), plan(samples=600))
    plain = synthesize(linear(), plan(samples=600, acquisition=None))

    assert gaps(linear(), chosen)[200:].mean() < 0.7 * gaps(linear(), plain).mean()


@pytest.mark.parametrize(("query_batch_size", "max_batch"), [(1, 1), (7, 512), (2048, 16)])
def test_the_batch_size_does_not_matter(query_batch_size, max_batch):
    expected = synthesize(linear(), plan())

    assert same(
        synthesize(linear(max_batch=max_batch), plan(query_batch_size=query_batch_size)), expected
    )


@pytest.mark.parametrize("budget", [1, 30, 31, 77])
def test_a_budget_may_end_with_any_query(budget):
    teacher = CountingTeacher(linear())

    assert len(synthesize(teacher, plan(queries=budget))) == teacher.total == budget


@pytest.mark.parametrize("samples", [2, 4, 5])
def test_fewer_samples_than_rounds_are_starts_until_two_classes_are_known(samples):
    assert len(synthesize(linear(), plan(rounds=5, samples=samples))) == samples


def test_a_teacher_of_one_class_is_named():
    teacher = CountingTeacher(ConstantTeacher(1, SHAPE, 3))

    with pytest.raises(TeacherError, match="starts, got class 1 for all"):
        synthesize(teacher, plan())
    assert teacher.total <= 90


@pytest.mark.parametrize("answered", [10, 30, 45, 89])
def test_a_run_whose_teacher_failed_is_resumed_without_asking_twice(tmp_path, answered):
    paid = CountingTeacher(linear(max_batch=8))
    with pytest.raises(TeacherError, match="the line is dead"):
        write_samples(RaisingTeacher(paid, answered), plan(), tmp_path)

    write_samples(paid, plan(), tmp_path, resume=True)

    assert same(load_pseudo_samples(tmp_path), synthesize(linear(), plan()))
    assert paid.total == read_manifest(tmp_path)["totals"]["queries"] == 90
    kept = list(tmp_path.glob("_round-*"))
    assert len(kept) == 2 and not any(file.stat().st_size for file in kept), "it is in the shard"


def test_a_lost_shard_is_made_again_only_where_students_choose_alike(tmp_path, monkeypatch):
    write_samples(linear(), plan(), tmp_path)
    (shard,) = tmp_path.glob("*.parquet")
    shard.unlink()
    monkeypatch.setattr(acquisition, "choose_proposals", lambda drawn, *_: next(drawn))
    with pytest.raises(ValueError, match="expected to choose the images that were already"):
        write_samples(linear(), plan(), tmp_path, resume=True)
    monkeypatch.undo()

    write_samples(linear(), plan(), tmp_path, resume=True)

    assert shard.exists(), "its name holds its checksum"


def test_a_choice_that_was_damaged_is_noticed(tmp_path):
    with pytest.raises(TeacherError):
        write_samples(RaisingTeacher(linear(max_batch=8), 45), plan(), tmp_path)
    (choice,) = tmp_path.glob("_round-*")
    choice.write_bytes(choice.read_bytes()[:-1] + b"?")

    with pytest.raises(ValueError, match=rf"{choice.name}: expected the checksum"):
        write_samples(linear(), plan(), tmp_path, resume=True)


def test_another_guide_is_another_run(tmp_path):
    write_samples(linear(), plan(), tmp_path)

    with pytest.raises(ValueError, match=r"synthesis\.acquisition\.rounds: was 3, is 4"):
        write_samples(linear(), plan(rounds=4), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("lenet6", "model: expected one of"),
        ("alexnet-half", "AlexNet needs images of at least"),
    ],
)
def test_a_student_that_does_not_fit_is_named_before_a_query(model, words):
    teacher = CountingTeacher(linear())

    with pytest.raises(ValueError, match=words):
        synthesize(teacher, plan(model=model))
    assert teacher.total == 0


def test_choosing_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()

    synthesize(linear(), plan())

    assert torch.equal(torch.random.get_rng_state(), before)


def test_effort_has_no_part_beside_a_guide():
    with pytest.raises(ValueError, match="effort: expected 1 with acquisition"):
        plan(effort=2.0)
