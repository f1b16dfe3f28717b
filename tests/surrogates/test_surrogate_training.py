"""Networks that learnt a teacher's decisions: what they cost, and what they know of it."""

import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import forked_processes
from teachers_analytic import (
    ConstantTeacher,
    CountingTeacher,
    LateTeacher,
    NearestCentroidTeacher,
    RaisingTeacher,
    RareTeacher,
    WrappedTeacher,
    image_key,
)
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.data.source import Source
from db3kd.querying import sharded_decisions
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.storage.shards import read_shards
from db3kd.surrogates import training as surrogate_training
from db3kd.surrogates.augmented_decisions import AUGMENTED_DECISIONS
from db3kd.surrogates.files import decisions_folder, manifest_file, prepare_surrogate
from db3kd.surrogates.queries import augment_samples, decide_augmented
from db3kd.surrogates.settings import SurrogateSettings, TrainedSurrogate
from db3kd.surrogates.training import make_surrogate, train_surrogate
from db3kd.teachers import FunctionTeacher, TeacherError, load_teacher
from db3kd.teachers.base import SingleClassError
from db3kd.training.evaluation import predict
from db3kd.training.settings import TrainSettings

SHAPE, CLASSES, SAMPLES, EACH = (3, 8, 6), 5, 60, 4
TRAINING = TrainSettings(steps=4, batch_size=32, device="cpu")
SETTINGS = SurrogateSettings("linear", EACH, training=TRAINING, networks=1)
"""Little training, for what does not depend on it."""


def pixels(samples: int = SAMPLES) -> Tensor:
    """Colour images on levels of 1/255, so that files keep them to the bit."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (samples, *SHAPE), generator=generator, dtype=torch.uint8)


def images(samples: int = SAMPLES) -> Tensor:
    return pixels(samples).float() / 255


def centroids(bounds: tuple[float, float] = (0.0, 1.0)) -> NearestCentroidTeacher:
    """Classes that each have about as many of the images."""
    generator = torch.Generator().manual_seed(1)
    centers = torch.rand(CLASSES, *SHAPE, generator=generator)
    return NearestCentroidTeacher(centers, SHAPE, bounds=bounds, max_batch=32)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    file = tmp_path / "images.npz"
    np.savez(file, images=pixels().numpy())
    return Source(str(file))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards a run, and several batches each."""
    monkeypatch.setattr(sharded_decisions, "SHARD_ROWS", 100)
    monkeypatch.setattr(sharded_decisions, "_BATCH_ROWS", 48)


class Terminal(io.StringIO):
    """A standard error that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def weights(surrogate: TrainedSurrogate) -> Tensor:
    return torch.cat([value.flatten() for value in surrogate.network.state_dict().values()])


def test_a_surrogate_costs_exactly_the_queries_announced():
    teacher = CountingTeacher(centroids())

    surrogate = make_surrogate(teacher, images(), SETTINGS)

    assert surrogate.queries == teacher.total == SAMPLES * EACH
    assert max(teacher.per_image.values()) == 1
    assert {image_key(image) for image in images()} < set(teacher.per_image)


def test_the_answers_of_a_surrogate_are_kept_in_a_folder(tmp_path, small_shards):
    whole = make_surrogate(centroids(), images(), SETTINGS)
    teacher, out = CountingTeacher(centroids()), tmp_path / "answers"
    out.mkdir()

    for left in (100, 64):
        with pytest.raises(TeacherError):
            make_surrogate(RaisingTeacher(teacher, left), images(), SETTINGS, out=out, resume=True)
    made = make_surrogate(teacher, images(), SETTINGS, out=out, resume=True)
    again = make_surrogate(teacher, images(), SETTINGS, out=out, resume=True)

    assert weights(made).equal(weights(whole)) and weights(again).equal(weights(whole))
    assert max(teacher.per_image.values()) == 1 and teacher.total == SAMPLES * EACH
    with pytest.raises(ValueError, match="holds a different run"):
        make_surrogate(teacher, images().flip(0), SETTINGS, out=out, resume=True)
    as_set = ImageSet.from_arrays(images().double())
    same = make_surrogate(teacher, as_set, SETTINGS, out=out, resume=True)
    assert same.queries == made.queries
    with pytest.raises(ValueError, match="resume: needs out="):
        make_surrogate(teacher, images(), SETTINGS, resume=True)


def test_only_the_first_shard_is_checked_and_asked_in_two_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_decisions, "SHARD_ROWS", 1_200)
    monkeypatch.setattr(sharded_decisions, "_BATCH_ROWS", 512)
    inner = centroids()
    inner.max_batch = 4_096
    asked, in_folder = CountingTeacher(inner), CountingTeacher(inner)

    decided = decide_augmented(asked, augment_samples(images(600), SETTINGS))
    make_surrogate(in_folder, images(600), SETTINGS, out=tmp_path / "answers")

    assert asked.calls == [1, 511, 488, 200, 512, 512, 176], "the first call has one image"
    assert in_folder.calls == asked.calls
    assert decided.decisions.equal(inner.decide(decided.images.read(torch.arange(2_400))))


def test_a_run_whose_first_shard_is_in_one_class_is_not_stopped_later(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_decisions, "SHARD_ROWS", 1_200)
    answered = []

    def decide(batch: Tensor) -> Tensor:
        answered.append(len(batch))
        return torch.full((len(batch),), int(sum(answered) > 2_200))

    teacher = FunctionTeacher(decide, SHAPE, CLASSES, max_batch=100, fingerprint="t")
    out, stopping = tmp_path / "answers", RaisingTeacher(teacher, 1_200)
    with pytest.raises(TeacherError, match="the line is dead"):
        make_surrogate(stopping, images(600), SETTINGS, out=out, rare_classes=True)

    made = make_surrogate(teacher, images(600), SETTINGS, out=out, resume=True)

    assert made.queries == sum(answered) == 2_400


def test_a_resumed_run_shows_all_of_its_samples(tmp_path, small_shards, monkeypatch):
    teacher, out = CountingTeacher(centroids()), tmp_path / "answers"
    with pytest.raises(TeacherError):
        make_surrogate(RaisingTeacher(teacher, 164), images(), SETTINGS, out=out)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())

    make_surrogate(teacher, images(), SETTINGS, out=out, resume=True)

    assert "240/240" in terminal.getvalue(), terminal.getvalue()


def test_a_surrogate_decides_as_its_teacher_does_on_images_it_never_saw():
    teacher = centroids()
    near = 0.4 * teacher.weights.view(-1, *SHAPE).float() / 2  # weights are twice the centroids
    drawn = near.repeat(160, 1, 1, 1) + 0.6 * images(800)
    training = replace(TRAINING, steps=300, learning_rate=0.01)
    settings = SurrogateSettings("linear", EACH, training=training)

    surrogate = make_surrogate(teacher, drawn[:400], settings)

    unseen = drawn[400:]
    alike = predict(surrogate.network, unseen) == teacher.decide(unseen)
    assert surrogate.agreement > 0.7, "with the mixed images, too; a fifth would be chance"
    assert alike.double().mean() > 0.9


def test_equal_arguments_give_equal_weights_and_another_seed_others():
    first, again = (make_surrogate(centroids(), images(), SETTINGS) for _ in range(2))
    seeded = replace(SETTINGS, training=replace(TRAINING, seed=1))
    other = make_surrogate(centroids(), images(), seeded)

    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_several_networks_learn_the_same_answers_from_different_initial_weights():
    counting = CountingTeacher(centroids())
    reported = []
    augmented = augment_samples(images(), SETTINGS)
    decided = decide_augmented(counting, augmented)

    several = replace(SETTINGS, networks=3)

    class Listener:
        def update(self, *, samples, **_):
            reported.append(samples)

    surrogate = train_surrogate(decided, CLASSES, several, Listener())

    assert counting.total == SAMPLES * EACH
    singles = [
        train_surrogate(decided, CLASSES, replace(SETTINGS, training=replace(TRAINING, seed=seed)))
        for seed in range(3)
    ]
    unseen = torch.rand(50, *SHAPE)
    with torch.no_grad():
        mean = torch.stack([one.network(unseen).log_softmax(1) for one in singles]).mean(0)
        torch.testing.assert_close(surrogate.network(unseen), mean)
    assert reported == sorted(reported)
    assert reported[-1] == 3 * TRAINING.steps
    assert not surrogate.network.training


def test_an_image_set_is_learnt_as_the_tensor_of_its_images():
    of_set = make_surrogate(centroids(), ImageSet.from_arrays(pixels()), SETTINGS)

    assert torch.equal(weights(of_set), weights(make_surrogate(centroids(), images(), SETTINGS)))


def test_a_twentieth_of_the_samples_is_held_out_and_no_partner_of_others():
    sorted_images = torch.arange(40.0).div(39)[:, None, None, None].expand(-1, *SHAPE)

    augmented = augment_samples(sorted_images, SETTINGS)

    drawn = augmented.read(torch.arange(0, 40 * EACH, EACH)).flatten(1)[:, 0]
    assert torch.equal(drawn.sort().values, sorted_images[:, 0, 0, 0]), "each sample once"
    assert drawn[-2:].tolist() != [38 / 39, 1.0], "a set may be sorted by class"
    assert (augmented.samples, augmented.partners) == (40, 38)


def test_training_takes_the_clean_images_and_the_others_but_none_held_out(monkeypatch):
    taken = []
    monkeypatch.setattr(
        surrogate_training,
        "train_classifier",
        lambda make, *_, rows, **__: taken.append(rows) or make().eval(),
    )

    make_surrogate(centroids(), images(), SETTINGS)

    counts = torch.bincount(taken[0])
    assert len(counts) == 57 * EACH
    assert (counts[::EACH] == 3).all(), "half of what is trained on"
    assert (counts.view(57, EACH)[:, 1:] == 1).all()


def test_agreement_is_measured_on_what_was_held_out():
    asked = decide_augmented(centroids(), augment_samples(images(), SETTINGS))

    surrogate = train_surrogate(asked, CLASSES, SETTINGS)

    rows = torch.arange(57 * EACH, SAMPLES * EACH)
    right = predict(surrogate.network, asked.images, rows=rows) == asked.decisions[rows]
    assert surrogate.agreement == pytest.approx(right.double().mean().item())


def test_answers_may_be_under_way():
    late = make_surrogate(LateTeacher(centroids()), images(), SETTINGS)

    assert torch.equal(weights(late), weights(make_surrogate(centroids(), images(), SETTINGS)))


@pytest.mark.parametrize(
    ("teacher", "given", "message"),
    [
        (centroids(), images()[:, :1], r"images: expected shape \(3, 8, 6\).*got \(1, 8, 6\)"),
        (centroids(), images(1), "images: expected at least 2"),
        (centroids(), images() * 2, r"images: .*\[0, 1\]"),
        (
            NearestCentroidTeacher(torch.rand(CLASSES, 8, 6, 3), (8, 6, 3)),
            images(),
            r"channels last; did you mean \(3, 8, 6\)",
        ),
        (centroids(), images().flatten(1), r"images: expected shape \(3, 8, 6\).*got \(144,\)"),
        (
            centroids((0.0, 0.5)),
            images(),
            r"expected bounds that contain \[0, 1\].*\[0, 0.5",
        ),
    ],
)
def test_images_that_do_not_fit_the_teacher_cost_no_query(teacher, given, message):
    counting = CountingTeacher(teacher)

    with pytest.raises(ValueError, match=message):
        make_surrogate(counting, given, SETTINGS)
    assert counting.total == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries_per_sample": 0}, "queries_per_sample: expected an integer of at least 1"),
        ({"networks": 0}, "networks: expected an integer of at least 1"),
        ({"networks": 17}, "networks: expected at most 16, got 17"),
        ({"clean_share": 1.0}, "clean_share: expected at least 0 and below 1"),
        ({"training": TrainSettings()}, r"training\.steps: expected a number, got None"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SurrogateSettings(**changes)


def test_a_model_that_does_not_fit_costs_no_query():
    counting = CountingTeacher(centroids())

    with pytest.raises(ValueError, match="AlexNet needs images of at least 8x8"):
        make_surrogate(counting, images(), replace(SETTINGS, model="alexnet"))
    assert counting.total == 0


def test_wider_bounds_are_asked_about_images_from_0_to_1():
    teacher = CountingTeacher(centroids((-1.0, 2.0)), keep=True)

    make_surrogate(teacher, images(), SETTINGS)

    asked = torch.cat(teacher.images)
    assert asked.min() >= 0 and asked.max() <= 1


def test_a_teacher_without_boundaries_is_named():
    with pytest.raises(TeacherError, match="240 augmented images, got class 3 for all"):
        make_surrogate(ConstantTeacher(3, SHAPE, CLASSES), images(), SETTINGS)
    counting = CountingTeacher(ConstantTeacher(3, SHAPE, CLASSES))
    with pytest.raises(SingleClassError, match="1,000 augmented images") as caught:
        make_surrogate(counting, images(500), SETTINGS)
    assert counting.total == 1_000 and "resume" not in str(caught.value)


def test_a_surrogate_of_rare_classes_is_trained_if_the_user_says_so(tmp_path):
    samples = images(500) / 2
    samples[9, 0, 0, 0] = 1
    counting = CountingTeacher(RareTeacher(SHAPE))
    with pytest.raises(SingleClassError, match="with resume=True and rare_classes=True"):
        make_surrogate(counting, samples, SETTINGS, out=tmp_path / "run")
    assert counting.total == 1_000

    made = make_surrogate(
        counting, samples, SETTINGS, out=tmp_path / "run", resume=True, rare_classes=True
    )

    assert made.queries == counting.total == 500 * EACH


def write(out: Path, source: Source, teacher: Any = None, **options: Any) -> dict[str, Any]:
    teacher = centroids() if teacher is None else teacher
    return prepare_surrogate(out, teacher, source, **{"settings": SETTINGS} | options).write()


def test_a_surrogate_is_written_as_a_teacher_that_decides_as_the_network(tmp_path, source):
    out = tmp_path / "there" / "surrogate.safetensors"
    made = write(out, source)

    network = make_surrogate(centroids(), images(), SETTINGS).network
    loaded = load_teacher(out)
    assert (loaded.image_shape, loaded.classes, loaded.bounds) == (SHAPE, CLASSES, (0.0, 1.0))
    unseen = torch.rand(200, *SHAPE)
    assert torch.equal(loaded.decide(unseen), predict(network, unseen))
    assert made == json.loads(manifest_file(out).read_text())
    assert made["queries"] == SAMPLES * EACH
    assert 0 <= made["agreement"] <= 1
    assert made["teacher"] == centroids().fingerprint()
    assert made["data"] == source.load().fingerprint()


def test_a_surrogate_of_several_networks_is_written_and_loaded(tmp_path, source):
    settings = replace(SETTINGS, networks=2)
    out = tmp_path / "surrogate.safetensors"
    write(out, source, settings=settings)

    network = make_surrogate(centroids(), images(), settings).network
    unseen = torch.rand(200, *SHAPE)
    assert torch.equal(load_teacher(out).decide(unseen), predict(network, unseen))
    with pytest.raises(ValueError, match="networks"):
        write(out, source, settings=replace(SETTINGS, networks=3), resume=True)


def test_the_answers_stay_beside_the_surrogate(tmp_path, source, small_shards):
    out = tmp_path / "surrogate.safetensors"
    write(out, source)

    folder = decisions_folder(out)
    totals = read_manifest(folder)["totals"]
    tables = [table for _, table in read_shards(folder, AUGMENTED_DECISIONS)]

    expected = decide_augmented(centroids(), augment_samples(images(), SETTINGS)).decisions
    assert [len(table) for table in tables] == [100, 100, 40]
    decisions = np.concatenate([table["decision"].to_numpy() for table in tables])
    assert decisions.tolist() == expected.tolist()
    assert tables[1]["sample"][0].as_py() == 25 and tables[1]["number"][3].as_py() == 3
    assert totals == {"samples": 240, "queries": 240}
    assert not list(folder.glob("*.journal"))
    assert len(pytest.importorskip("pandas").read_parquet(folder)) == 240


def test_a_limit_takes_so_many_of_the_images(tmp_path, source):
    teacher = CountingTeacher(centroids())

    write(tmp_path / "surrogate.safetensors", source, teacher, limit=20)

    assert teacher.total == 20 * EACH


@pytest.mark.parametrize("answered", [0, 31, 32, 100, 150, 239])
def test_a_teacher_that_failed_is_asked_nothing_twice(tmp_path, source, small_shards, answered):
    out, whole = tmp_path / "surrogate.safetensors", tmp_path / "whole.safetensors"
    counting = CountingTeacher(centroids())
    with pytest.raises(TeacherError, match="the line is dead"):
        write(out, source, RaisingTeacher(counting, answered))
    before = counting.total
    assert decisions_folder(out).exists() == (before > 0)
    assert not out.exists()

    made = write(out, source, counting, resume=before > 0)

    assert counting.total == made["queries"] == SAMPLES * EACH
    assert max(counting.per_image.values()) == 1
    assert made["agreement"] == write(whole, source)["agreement"]
    assert load_teacher(out).fingerprint() == load_teacher(whole).fingerprint()


class KillingTeacher(WrappedTeacher):
    """Kills its process in the middle of a call, having noted what it was asked in a file."""

    def __init__(self, inner: Any, calls: int, log: Path) -> None:
        super().__init__(inner)
        self.calls, self.log = calls, log

    def decide(self, images: Tensor) -> Tensor:
        with self.log.open("a") as log:
            log.writelines(f"{image_key(image)}\n" for image in images)
        self.calls -= 1
        if not self.calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decide(images)


def _write_and_die(out: Path, source: Source, calls: int, log: Path) -> None:
    write(out, source, KillingTeacher(centroids(), calls, log))


def test_a_kill_costs_the_call_in_flight_and_no_more(tmp_path, source):
    out, log = tmp_path / "surrogate.safetensors", tmp_path / "asked"
    process = forked_processes().Process(target=_write_and_die, args=(out, source, 5, log))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    counting = CountingTeacher(centroids())

    made = write(out, source, counting, resume=True)

    asked = log.read_text().split()
    twice = [key for key in asked if counting.per_image[key]]
    assert len(asked) == 1 + 4 * 32 and twice == asked[-32:], "the last call was in flight"
    assert len(set(asked) | set(counting.per_image)) == made["queries"] == SAMPLES * EACH
    assert queries_in_flight(read_manifest(decisions_folder(out))) == 32


def test_training_that_was_stopped_is_made_up_for_without_a_query(tmp_path, source, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out, whole = tmp_path / "surrogate.safetensors", tmp_path / "whole.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(surrogate_training, "train_classifier", stop)
        with pytest.raises(KeyboardInterrupt):
            write(out, source)
    silent = RaisingTeacher(centroids(), 0)

    write(out, source, silent, resume=True)

    write(whole, source)
    assert load_teacher(out).fingerprint() == load_teacher(whole).fingerprint()


def test_another_network_is_trained_on_answers_that_are_there(tmp_path, source):
    out, silent = tmp_path / "surrogate.safetensors", RaisingTeacher(centroids(), 0)
    write(out, source)
    out.unlink()

    made = write(out, source, silent, resume=True, settings=replace(SETTINGS, model="lenet5-fifth"))

    assert made["settings"]["surrogate"]["model"] == "lenet5-fifth"
    assert load_teacher(out).decide(images(3)).shape == (3,)


def test_a_finished_surrogate_is_left_as_it_is(tmp_path, source):
    out = tmp_path / "surrogate.safetensors"
    made = write(out, source)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    assert write(out, source, RaisingTeacher(centroids(), 0), resume=True) == made
    after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert after == before


def test_nothing_is_overwritten(tmp_path, source):
    out = tmp_path / "surrogate.safetensors"
    with pytest.raises(ValueError, match=r"out: expected a name ending in \.safetensors"):
        write(tmp_path / "surrogate.pt", source)
    write(out, source)

    for file in (out, manifest_file(out)):
        with pytest.raises(FileExistsError, match=f"{file.name}: already exists"):
            write(out, source)
        file.unlink()
    with pytest.raises(FileExistsError, match="already holds a run; continue it with resume=True"):
        write(out, source)


def test_resuming_does_not_take_a_file_of_others_for_its_own(tmp_path, source):
    out = tmp_path / "surrogate.safetensors"
    manifest_file(out).write_text("{}")

    with pytest.raises(FileExistsError, match=r"surrogate\.json: already exists"):
        write(out, source, resume=True)

    out.write_text("mine")
    with pytest.raises(ValueError, match="holds another surrogate"):
        write(out, source, resume=True)
    manifest_file(out).write_text("[]")
    with pytest.raises(
        ValueError, match=r"the manifest of surrogate\.safetensors .* cannot be read"
    ):
        write(out, source, resume=True)
    manifest_file(out).unlink()
    with pytest.raises(ValueError, match=r"the manifest of surrogate\.safetensors is missing"):
        write(out, source, resume=True)


def test_another_surrogate_is_not_resumed_and_each_difference_is_named(tmp_path, source):
    out = tmp_path / "surrogate.safetensors"
    other = {"settings": replace(SETTINGS, queries_per_sample=5), "limit": 50, "resume": True}
    with pytest.raises(TeacherError):
        write(out, source, RaisingTeacher(centroids(), 100))

    with pytest.raises(ValueError, match="holds a different run") as raised:
        write(out, source, ConstantTeacher(0, SHAPE, CLASSES), **other)

    assert "settings.queries_per_sample: was 4, is 5" in str(raised.value)
    assert "settings.limit: was null, is 50" in str(raised.value)
    assert "teacher: was" in str(raised.value)
    write(out, source, resume=True)
    with pytest.raises(ValueError, match="holds another surrogate") as raised:
        write(out, source, **other)
    assert "settings.surrogate.queries_per_sample: was 4, is 5" in str(raised.value)


def test_images_may_lie_elsewhere_but_must_be_the_same(tmp_path, source):
    out = tmp_path / "surrogate.safetensors"
    np.savez(tmp_path / "there.npz", images=pixels().numpy())
    np.savez(tmp_path / "other.npz", images=pixels().numpy()[::-1])
    with pytest.raises(TeacherError):
        write(out, source, RaisingTeacher(centroids(), 100))

    with pytest.raises(ValueError, match=r"holds a different run.*: data: was"):
        write(out, Source(str(tmp_path / "other.npz")), resume=True)
    there = Source(str(tmp_path / "there.npz"))
    assert write(out, there, resume=True)["queries"] == SAMPLES * EACH
    assert write(out, source, resume=True)["queries"] == SAMPLES * EACH


@pytest.mark.parametrize("convert", [torch.clone, torch.Tensor.numpy])
def test_an_invalid_image_is_named_by_its_row_in_the_images_of_the_caller(convert):
    broken = torch.rand(30, *SHAPE)
    broken[7, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"images: .*got NaN at row 7;"):
        make_surrogate(centroids(), convert(broken), SETTINGS)
