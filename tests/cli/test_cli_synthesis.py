"""The command that makes images: synthesize."""

from pathlib import Path

import pytest
import torch
from command_line import TEACHERS, CountingTeacher, Result, fail, succeed

from db3kd.data.pseudo_samples import load_pseudo_samples
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.pipelines.student_training import time_limit
from db3kd.pipelines.student_training.time_estimate import steps_of_acquisition
from db3kd.progress import duration
from db3kd.storage.manifest import read_manifest
from db3kd.synthesis import AcquisitionSettings

PLAIN = ("--preset", "plain")
"""Options for random pseudo samples."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of 8x8 images, told apart at random."""
    torch.manual_seed(0)
    network = build_model("linear", (1, 8, 8), 10)
    file = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_model(file, network, model="linear", image_shape=(1, 8, 8), classes=10)
    return file


def synthesize_arguments(teacher: Path | str, out: Path) -> tuple[object, ...]:
    where = ("--teacher", teacher, "--out", out, "--device", "cpu")
    return ("synthesize", *where, *PLAIN, "--samples", 60)


MOVED = ("--moves", 2, "--queries-per-sample", 60, "--snapshots", "0,1")


def test_pseudo_samples_are_made_labelled_and_distilled(teacher, tmp_path):
    pseudo, labels = tmp_path / "pseudo", tmp_path / "labels"

    out = succeed(*synthesize_arguments(teacher, pseudo), *MOVED)

    samples, totals = load_pseudo_samples(pseudo), read_manifest(pseudo)["totals"]
    assert len(samples) == 60 and sorted(samples.snapshots) == [0, 1]
    assert f"queries        {totals['queries']:,}, of which {totals['start_queries']}" in out
    where = ("--teacher", teacher, "--data", pseudo, "--device", "cpu")
    succeed("label", *where, "--measure", "bd", "--queries-per-pair", 10, "--out", labels)
    student = tmp_path / "student.safetensors"
    options = ("--model", "linear", "--steps", 5, "--device", "cpu", "--scale", 1)
    succeed("distill", "--labels", labels, "--data", pseudo, "--out", student, *options)
    assert student.is_file()


def test_a_function_needs_image_shape_and_classes(tmp_path):
    arguments = synthesize_arguments(f"{TEACHERS}:striped", tmp_path / "run")

    assert "pass --image-shape and --classes" in fail(*arguments)
    assert "--image-shape: expected sizes such as 1,28,28" in fail(
        *arguments, "--image-shape", "8x8"
    )
    out = succeed(*arguments, "--image-shape", "1,8,8", "--classes", 3)

    assert "not reached    classes 2: no image was found" in out


def test_a_failed_synthesis_prints_how_to_continue(tmp_path):
    arguments = synthesize_arguments(f"{TEACHERS}:TiringTeacher", tmp_path / "run")

    failing = Result(*arguments, *MOVED)

    assert "the answers so far are kept; up to 59 queries of the last call may" in failing.err
    assert failing.err.splitlines()[-1].startswith("error: teacher TiringTeacher raised")
    message = fail(*arguments, *MOVED)
    assert "already holds a run; continue it with --resume" in message
    message = fail(*arguments, *MOVED, "--resume", "--seed", 1)
    assert "holds a different run" in message and "seed: was 0, is 1" in message
    given = synthesize_arguments(f"{TEACHERS}:CountingTeacher", tmp_path / "run")
    left = "answered       1 of these queries, which are not sent again; at most 3,665 are left"
    assert left in succeed(*given, *MOVED, "--resume", "--dry-run")
    assert left in succeed(*given, *MOVED, "--resume")
    queries = read_manifest(tmp_path / "run")["totals"]["queries"]
    finished = f"answered       {queries:,} queries; the run is finished"
    assert queries < 3_666 and finished in succeed(*given, *MOVED, "--resume", "--dry-run")
    shard = next((tmp_path / "run").glob("*.parquet"))
    shard.unlink()
    assert "the run is finished" not in succeed(*given, *MOVED, "--resume", "--dry-run")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--starts", "noise"), "--starts: expected one of paper, "),
        (("--moves", 1, "--snapshots", "5,ten"), "--snapshots: expected numbers"),
        (("--teacher", "missing.safetensors"), "there is no such file"),
        (("--cuda-graphs",), "--cuda-graphs: expected a CUDA device, got cpu"),
        (("--teacher", f"{TEACHERS}:constant"), "got class 3 for all"),
        (("--teacher", f"{TEACHERS}:failing"), "out of service"),
    ],
)
def test_invalid_synthesis_options_are_refused(teacher, tmp_path, options, words):
    named = TEACHERS in options[-1]
    shape = ("--image-shape", "1,8,8", "--classes", 10) if named else ()

    assert words in fail(*synthesize_arguments(teacher, tmp_path / "run"), *options, *shape)


def test_folders_in_use_are_refused_before_the_teacher_is_loaded(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    message = fail(*synthesize_arguments("missing.safetensors", tmp_path))

    assert "expected a new or an empty folder" in message


def test_the_most_queries_and_their_price_are_shown_before_the_first_one(tmp_path, monkeypatch):
    out, before = tmp_path / "run", CountingTeacher.asked
    given = (*synthesize_arguments(f"{TEACHERS}:CountingTeacher", out), "--price-per-1000", 0.25)

    # A tenth of a query per sample may go to mixtures.
    plan = "plan           60 pseudo samples, at most 66 queries, price 0.0165 at 0.25 per 1,000"
    assert succeed(*given, "--dry-run").startswith(plan)
    assert CountingTeacher.asked == before and not out.exists()
    moved = succeed(*given, *MOVED, "--dry-run")
    assert "60 pseudo samples, at most 3,666 queries, price 0.9165" in moved
    assert "at most 500 queries" in succeed(*given, *MOVED, "--budget", 500, "--dry-run")
    endless = succeed(*given, "--moves", 2, "--dry-run")
    assert "no maximum number of queries; --budget or --queries-per-sample sets one" in endless
    assert "training" not in endless, "no student chooses plain samples"
    monkeypatch.setattr(time_limit, "seconds_per_step", lambda *_: 0.5)
    guided = succeed(*given, "--preset", "guided", "--dry-run")
    seconds = 0.5 * steps_of_acquisition(AcquisitionSettings(), 60, 0)
    assert f"training       about {duration(seconds)} on this machine, of the students" in guided
    made = succeed(*given)
    queries = read_manifest(out)["totals"]["queries"]
    assert made.startswith(plan) and queries <= 66
    assert f"queries        {queries}, of which" in made and "at 0.25 per 1,000" in made
