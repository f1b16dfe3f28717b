"""The command label, on small data."""

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import (
    TEACHERS,
    CountingTeacher,
    Result,
    TiringTeacher,
    fail,
    label,
    label_arguments,
    succeed,
)
from image_cases import write_png

import db3kd
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.label_files import load_labels
from db3kd.storage.manifest import MANIFEST, read_manifest, write_manifest
from db3kd.wording import money


def test_a_run_folder_holds_labels_and_a_manifest(run):
    labels, manifest = load_labels(run), read_manifest(run)

    assert len(labels) == 40 and sorted(labels.snapshots) == [5, 10, 20]
    assert labels.index.max() >= 40, "indices refer to the data set, not to the drawn images"
    assert manifest["totals"]["queries"] == int(labels.queries.sum())
    assert manifest["totals"]["statuses"] == {"ok": 40}
    assert manifest["settings"]["labelling"]["measure"] == "bd"
    assert manifest["state"] == "finished"


def test_the_report_counts_decisions_of_images_that_are_not_labelled(tmp_path):
    asked, data = CountingTeacher.asked, load_data("digits")
    some, out = range(40, 60), tmp_path / "run"
    labels = db3kd.label(CountingTeacher(), data, LabelSettings(measure="sd"), index=some, out=out)
    asked = CountingTeacher.asked - asked

    page = Path(succeed("report", out, "--data", "digits").strip()).read_text()

    assert int(labels.queries.sum()) == 20 and asked == len(data)
    assert f"{asked - 20:,} more queries: decisions for images that are starting points" in page


def test_folders_whose_names_are_not_utf_8_are_labelled_and_written(tmp_path):
    """As after unpacking an archive of an old Windows."""
    for number in range(4):
        name = b"caf\xe9/na\xefve" if number % 2 else b"caf\xe9/b"
        pixels = np.full((8, 8), 60 * number, np.uint8)
        write_png(tmp_path / os.fsdecode(name) / f"{number}.png", pixels)
    data, out = tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / os.fsdecode(b"r\xe9sultat")

    printed = succeed(
        *("label", "--teacher", f"{TEACHERS}:CountingTeacher", "--data", data, "--out", out),
        *("--measure", "sd"),
    )

    assert printed.splitlines()[-1].endswith("r\\udce9sultat")
    assert read_manifest(out)["settings"]["source"]["data"] == data.name
    assert load_data(data).class_names == ("b", "na\\xefve")


def test_the_summary_line_counts_queries_that_were_paid_twice(teacher, tmp_path):
    out = tmp_path / "run"
    first = label(teacher, out, "--budget", 400)
    stop = {"at": "2026-01-01T00:00:00+00:00", "queries_in_flight": 9}
    write_manifest(out / MANIFEST, read_manifest(out) | {"resumed": [stop]})

    resumed = label(teacher, out, "--budget", 400, "--resume", "--price-per-1000", 10)

    assert "paid twice" not in first
    line = next(line for line in resumed.splitlines() if line.startswith("queries "))
    queries = int(line.split()[1].strip(","))
    assert line.endswith(
        " at 10.00 per 1,000, plus at most 9 that may have been paid twice, so the price is at "
        f"most {money((queries + 9) / 100)}"
    )


def test_the_summary_states_the_queries(teacher, tmp_path):
    out = label(teacher, tmp_path / "run", "--budget", 400)

    spent = int(load_labels(tmp_path / "run").queries.sum())
    assert spent <= 400
    assert f"queries        {spent}, {spent / 40:.1f} per sample" in out


def test_a_folder_in_use_is_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    message = fail(*label_arguments("missing.safetensors", tmp_path), "--data", "nothing")

    assert "expected a new or an empty folder" in message


def test_the_images_are_loaded_once(teacher, tmp_path, monkeypatch):
    loaded = []

    def counting_load(*arguments: object, **options: object) -> ImageSet:
        loaded.append(arguments)
        return load_data(*arguments, **options)

    monkeypatch.setattr("db3kd.data.source.load_data", counting_load)
    label(teacher, tmp_path / "run", "--queries-per-pair", 5)

    assert loaded == [("digits", "train")]


def test_a_run_is_resumed_only_with_its_option(teacher, run, tmp_path):
    options = ("--queries-per-pair", 30, "--snapshots", "5,10,20")
    copy = shutil.copytree(run, tmp_path / "copy")
    next(copy.glob("*.parquet")).unlink()

    message = fail(*label_arguments(teacher, copy), *options)
    assert "already holds a run; continue it with --resume" in message
    message = fail(*label_arguments(teacher, copy), "--queries-per-pair", 31, "--resume")
    assert "settings.labelling.queries_per_pair: was 30, is 31" in message
    assert "nothing to do" not in label(teacher, copy, *options, "--resume")
    out = label(teacher, copy, *options, "--resume")

    assert "\nnothing to do  the run was already finished\n" in out
    assert torch.equal(load_labels(copy).distances, load_labels(run).distances)
    assert read_manifest(copy)["totals"] == read_manifest(run)["totals"]


def test_batch_size_and_concurrent_chunks_change_no_label(teacher, run, tmp_path):
    options = ("--queries-per-pair", 30, "--snapshots", "5,10,20")
    label(teacher, tmp_path / "other", *options, "--concurrent-chunks", 3, "--max-batch", 16)

    assert torch.equal(load_labels(tmp_path / "other").distances, load_labels(run).distances)


def test_a_failed_run_prints_how_to_continue(tmp_path):
    arguments = label_arguments(f"{TEACHERS}:TiringTeacher", tmp_path / "run")

    failing = Result(*arguments, "--queries-per-pair", 100)

    assert "the answers so far are kept; up to 39 queries of the last call may" in failing.err
    assert failing.err.splitlines()[-1].startswith("error: teacher TiringTeacher raised")


def test_the_manifest_counts_the_queries_of_the_teacher(tmp_path):
    CountingTeacher.asked = 0

    label(f"{TEACHERS}:CountingTeacher", tmp_path / "run", "--queries-per-pair", 10)

    described = read_manifest(tmp_path / "run")
    assert described["totals"]["queries"] == CountingTeacher.asked


def test_a_dry_run_prints_the_plan_of_the_run_and_writes_and_asks_nothing(tmp_path):
    arguments = label_arguments(f"{TEACHERS}:CountingTeacher", tmp_path / "run")
    options = ("--queries-per-pair", 10, "--price-per-1000", 2)
    CountingTeacher.asked = 0

    planned = succeed(*arguments, *options, "--dry-run")

    assert planned.splitlines() == [
        "plan           at most 3,640 queries for 40 samples, price 7.28 at 2.00 per 1,000",
        "querying       time unknown; db3kd info --teacher … --time 20 measures it with 20 queries",
        "dry run        no query was sent; nothing was written",
    ]
    assert CountingTeacher.asked == 0 and list(tmp_path.iterdir()) == []
    assert succeed(*arguments, *options).splitlines()[0] == planned.splitlines()[0]
    assert 0 < CountingTeacher.asked <= 3_640


def test_a_dry_run_checks_the_images_as_a_run_does(tmp_path):
    images = np.full((50, 1, 8, 8), 0.5, np.float32)
    images[49] = np.nan
    np.save(tmp_path / "images.npy", images)
    arguments = label_arguments(f"{TEACHERS}:failing", tmp_path / "run")
    options = ("--data", tmp_path / "images.npy", "--limit", 50, "--classes", 10)

    message = fail(*arguments, *options, "--dry-run")

    assert "got NaN at row 49" in message
    assert message == fail(*arguments, *options)
    assert not (tmp_path / "run").exists()


def test_samples_that_the_budget_does_not_cover_are_announced_and_counted(teacher, tmp_path):
    arguments = label_arguments(teacher, tmp_path / "run")
    small = Result(*arguments, "--budget", 30)
    assert small.code == 0
    assert "note: the budget covers the decisions of at most 30 of 40 images; the oth" in small.err
    assert "not labelled   10 samples (status budget), whose decision the budget " in small.out
    enough = Result(*label_arguments(teacher, tmp_path / "enough"), "--budget", 60)
    assert "note" not in enough.err and "not labelled" not in enough.out


@pytest.mark.parametrize(
    ("options", "queries"),
    [
        (("--budget", 2_000), 2_000),
        (("--queries-per-pair", 5), 40 * (1 + 9 * 5)),
        (("--measure", "sd"), 40),
    ],
)
def test_the_maximum_of_queries_and_its_price_are_printed_before_the_first_query(
    tmp_path, options, queries
):
    arguments = label_arguments(f"{TEACHERS}:failing", tmp_path / "run")
    shape = ("--image-shape", "1,8,8", "--classes", 10)

    stopped = Result(*arguments, *options, *shape, "--price-per-1000", 2)

    price = f"{queries * 2 / 1000:.2f}"
    plan = f"plan           at most {queries:,} queries for 40 samples"
    assert stopped.out == f"{plan}, price {price} at 2.00 per 1,000\n"
    assert "out of service" in stopped.err
    assert f"{plan}\n" in Result(*arguments, *options, *shape).out


def test_the_plan_of_a_resumed_run_says_what_is_answered(tmp_path):
    arguments = label_arguments(f"{TEACHERS}:TiringTeacher", tmp_path / "run")
    before = CountingTeacher.asked
    Result(*arguments, "--budget", 2_000)
    answered = CountingTeacher.asked - before

    resumed = Result(*arguments, "--budget", 2_000, "--resume").out

    assert answered and resumed.splitlines() == [
        "plan           at most 2,000 queries for 40 samples",
        f"answered       {answered} of these queries, which are not sent again; at most "
        f"{2_000 - answered:,} are left",
    ]


@pytest.mark.parametrize(
    "surrogate", [(), ("--measure", "mbd", "--surrogate", "auto", "--surrogate-model", "linear")]
)
def test_a_dry_run_of_a_resumed_run_says_what_is_answered(tmp_path, monkeypatch, surrogate):
    monkeypatch.setattr("db3kd.labelling.runs.auto_surrogate.DEFAULT_STEPS", 5)
    out = tmp_path / "run"

    def arguments(teacher: str, *more: object, budget: int = 15_000) -> tuple[object, ...]:
        given = label_arguments(f"{TEACHERS}:{teacher}", out)
        return (*given, "--budget", budget, "--resume", *surrogate, *more)

    dry_run = ("--dry-run", "--price-per-1000", 1000)
    started = CountingTeacher.asked
    out.mkdir()
    assert "answered" not in succeed(*arguments("CountingTeacher", *dry_run))
    assert not list(out.iterdir())
    for _ in range(8):
        fail(*arguments("TiringTeacher"))
    paid = CountingTeacher.asked - started
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}

    printed = succeed(*arguments("CountingTeacher", *dry_run))

    assert (
        f"answered       {paid:,} of these queries, which are not sent again; at most " in printed
    )
    refused = fail(*arguments("CountingTeacher", "--dry-run", budget=15_001))
    assert "settings.queries: was 15000, is 15001 (--budget)" in refused
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert CountingTeacher.asked - started == paid
    succeed(*arguments("CountingTeacher"))
    spent = CountingTeacher.asked - started
    finished = succeed(*arguments("CountingTeacher", "--dry-run"))
    assert f"answered       {spent:,} queries; the run is finished" in finished
    assert "querying" not in finished and CountingTeacher.asked - started == spent

    next(out.glob("*.parquet")).unlink()
    printed = succeed(*arguments("CountingTeacher", *dry_run))
    assert "the run is finished" not in printed
    left = int(re.search(r"at most ([\d,]+) are left", printed)[1].replace(",", ""))
    succeed(*arguments("CountingTeacher"))
    assert 0 < CountingTeacher.asked - started - spent <= left


def test_only_targets_are_searched_and_the_summary_counts_the_estimates(teacher, tmp_path):
    out = label(teacher, tmp_path / "run", "--targets", 2, "--queries-per-pair", 20)

    labels = load_labels(tmp_path / "run")
    assert labels.searched.sum(1).tolist() == [2] * 40 and bool(labels.distances.isfinite().all())
    assert "pairs reached  80 of 360" in out
    assert "not searched   280 pairs, whose distances are estimated" in out
    page = Path(succeed("report", "--labels", tmp_path / "run").strip()).read_text()
    assert "Not searched: 280 pairs" in page and "Pairs reached: 80 of 360" in page


@pytest.mark.parametrize("budget", [None, 30])
def test_classes_without_an_image_are_named_with_what_helps(tmp_path, budget):
    """The teacher chooses two of ten classes; a budget of 30 decides 30 of the 40 images."""
    options = () if budget is None else ("--budget", budget)
    decided = 40 if budget is None else budget

    out = label(f"{TEACHERS}:CountingTeacher", tmp_path / "run", *options)

    assert load_labels(tmp_path / "run").decision.unique().tolist()[-2:] == [0, 1]
    line = next(line for line in out.splitlines() if line.startswith("not reachable  "))
    assert "8 of 10 classes (2, 3, 4, 5, 6, 7, 8, 9): the teacher put no image in them" in line
    assert f"{decided * 8} pairs with them cannot be reached. Adding images of these" in line
    assert ("but a larger budget does not" in line) == (budget is None)
    assert ("a budget that covers the decisions of all images" in line) == (budget is not None)
    page = Path(succeed("report", "--labels", tmp_path / "run").strip()).read_text()
    assert f"Not reachable: {line.removeprefix('not reachable  ')}." in page
    assert read_manifest(tmp_path / "run")["totals"]["absent_classes"] == list(range(2, 10))


def test_classes_of_images_that_are_starting_points_only_are_not_called_absent(tmp_path):
    data, out = load_data("digits"), tmp_path / "run"
    bright = CountingTeacher().decide(data.read(range(len(data)))) == 1
    rows = bright.nonzero().flatten()[:20]

    db3kd.label(CountingTeacher(), data, LabelSettings(measure="sd"), index=rows, out=out)

    assert load_labels(out).decision.unique().tolist() == [1]
    assert read_manifest(out)["totals"]["absent_classes"] == list(range(2, 10))
    page = Path(succeed("report", out, "--data", "digits").strip()).read_text()
    assert "Not reachable: 8 of 10 classes (2, 3, " in page


def test_a_run_that_has_images_of_all_classes_says_nothing_of_absent_ones(run, tmp_path):
    page = Path(succeed("report", run, "--out", tmp_path / "report").strip()).read_text()

    assert "Not reachable" not in page and read_manifest(run)["totals"]["absent_classes"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--targets", 10), "--targets: expected at most 9"),
        (("--targets", 2, "--measure", "sd"), "--targets: expected None with measure 'sd'"),
    ],
)
def test_impossible_targets_are_refused(teacher, tmp_path, options, words):
    assert words in fail(*label_arguments(teacher, tmp_path / "run"), *options)
    assert not (tmp_path / "run").exists()


def test_a_surrogate_shortens_distances_and_is_part_of_the_run(teacher, tmp_path):
    arguments = ("label", "--teacher", teacher, "--data", "digits", "--limit", 20)
    few = ("--queries-per-pair", 25, "--device", "cpu")
    for name, more in (("guessed", ("--surrogate", teacher)), ("plain", ())):
        succeed(*arguments, *few, "--out", tmp_path / name, *more)
    guessed, plain = (load_labels(tmp_path / name).distances for name in ("guessed", "plain"))

    reached = plain.isfinite()
    assert guessed[reached].mean() < plain[reached].mean()
    assert len(read_manifest(tmp_path / "guessed")["settings"]["surrogate"]) == 64
    message = fail(*arguments, *few, "--out", tmp_path / "guessed", "--resume")
    assert "settings.surrogate: was" in message


AUTO = ("--measure", "mbd", "--surrogate", "auto", "--surrogate-model", "linear")


@pytest.mark.parametrize(("more", "networks"), [((), 3), (("--surrogate-networks", 1), 1)])
def test_a_run_trains_its_surrogate_within_the_budget_and_says_what_it_costs(
    tmp_path, monkeypatch, more, networks
):
    monkeypatch.setattr("db3kd.labelling.runs.auto_surrogate.DEFAULT_STEPS", 5)
    arguments = label_arguments(f"{TEACHERS}:CountingTeacher", tmp_path / "run")
    options = (*AUTO, *more, "--budget", 12_000, "--price-per-1000", 1_000)
    CountingTeacher.asked = 0

    planned = succeed(*arguments, *options, "--dry-run")
    assert CountingTeacher.asked == 0 and not (tmp_path / "run").exists()
    out = succeed(*arguments, *options)

    line = re.search(r"surrogate +trained on ([\d,]+) of these queries: (a pair .*)", planned)
    assert planned.startswith("plan           at most 12,000 queries for 40 samples, price 12,000")
    assert out.startswith(planned[: line.end()])
    assert f"surrogate      {line[1]} of these queries, agreement " in out and line[2] in out
    manifest = read_manifest(tmp_path / "run")
    assert manifest["settings"]["surrogate"]["networks"] == networks
    totals = manifest["totals"]
    assert f"{totals['surrogate_queries']:,}" == line[1]
    asked = totals["queries"] + totals["surrogate_queries"]
    assert asked == CountingTeacher.asked <= 12_000
    spent = (
        f"queries        {asked:,}, {totals['queries'] / 40:,.1f} per sample and {line[1]} others"
    )
    assert f"{spent}, price {asked:,}.00 at 1,000.00 per 1,000" in out
    assert "nothing to do" in succeed(*arguments, *options, "--resume")
    other = (*AUTO, "--surrogate-networks", 2, "--budget", 12_000, "--resume")
    for more in ((), ("--dry-run",)):
        refused = fail(*arguments, *other, *more)
        assert f"networks: was {networks}, is 2 (--surrogate-networks)" in refused
    assert CountingTeacher.asked == asked
    page = Path(succeed("report", "--labels", tmp_path / "run").strip()).read_text()
    assert f"Surrogate of the run: {line[1]} more queries" in page
    held_out = read_manifest(tmp_path / "run")["surrogate"][-1]["held_out"]
    agreement = (
        r"agreement [\d.]+% \(95 % interval [\d.]+% to [\d.]+%\) of ([\d,]+) held-out images"
    )
    for text in (out, page):
        assert re.search(agreement, text)[1] == f"{held_out:,}"


def test_a_run_says_why_it_trains_no_surrogate(tmp_path):
    arguments = label_arguments(f"{TEACHERS}:CountingTeacher", tmp_path / "run")
    options = (*AUTO, "--budget", 600)

    planned = succeed(*arguments, *options, "--dry-run")

    why = "none: a surrogate needs 2,000 queries, too many of 560 for 360 pairs"
    assert f"surrogate      {why}" in planned
    assert succeed(*arguments, *options).count(f"surrogate      {why}") == 2, "plan and summary"


def test_a_surrogate_without_gradients_is_refused(teacher, tmp_path):
    arguments = label_arguments(teacher, tmp_path / "run")
    message = fail(*arguments, "--measure", "mbd", "--surrogate", f"{TEACHERS}:CountingTeacher")

    assert "--surrogate: expected a torch network" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [("--workers", 2), ("--ray-address", "localhost:1")])
def test_workers_without_ray_name_the_extra_to_install(teacher, tmp_path, monkeypatch, options):
    monkeypatch.setitem(sys.modules, "ray", None)

    message = fail(*label_arguments(teacher, tmp_path / "run"), *options)

    assert 'pip install "db3kd[ray]"' in message
    assert not (tmp_path / "run").exists()


def test_inverse_soft_labels_have_the_papers_temperature(teacher, tmp_path):
    label(teacher, tmp_path / "run", "--normalisation", "inverse", "--queries-per-pair", 10)

    assert load_labels(tmp_path / "run").soft_labels.shape == (40, 10)
    assert read_manifest(tmp_path / "run")["settings"]["soft_labels"]["temperature"] == 20


def test_the_paper_preset_has_the_papers_starting_points(teacher, tmp_path):
    label(teacher, tmp_path / "run", "--preset", "paper", "--queries-per-pair", 10)

    labelling = read_manifest(tmp_path / "run")["settings"]["labelling"]
    assert (labelling["starting_points"], labelling["order"]) == (201, "random")
    assert labelling["queries_per_pair"] == 10, "an option overrides the preset"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--snapshots", "5,ten"), "--snapshots: expected numbers"),
        (("--temperature", "2"), "stored only with a --scale"),
        (("--surrogate-model", "linear"), "--surrogate-model: needs --surrogate auto"),
        (("--surrogate-networks", 2), "--surrogate-networks: needs --surrogate auto"),
        (("--surrogate", "auto"), "got measure 'bd'; pass --measure 'mbd', or no surrogate"),
        (("--surrogate", "missing.safetensors"), "there is no such file"),
        (("--normalisation", "inverse", "--scale", "2"), "inverse has no scale"),
        (("--split", "validation"), "--split: digits has"),
        (("--data", "nothing"), "--data: expected mnist5k"),
        (("--data", "mnist5k"), "expected shape (1, 8, 8)"),
        (("--teacher", "missing.safetensors"), "there is no such file"),
        (("--cuda-graphs",), "--cuda-graphs: expected a CUDA device, got cpu"),
        (
            ("--compile", "--teacher", f"{TEACHERS}:constant"),
            "--compile: applies to torch modules only",
        ),
        (("--teacher", f"{TEACHERS}:constant"), "got class 3 for all"),
        (("--teacher", f"{TEACHERS}:failing"), "out of service"),
    ],
)
def test_invalid_label_options_are_refused(teacher, tmp_path, options, words):
    assert words in fail(*label_arguments(teacher, tmp_path / "run"), *options)


def test_resuming_is_not_advised_if_it_cannot_help(teacher, tmp_path):
    constant = ("--teacher", f"{TEACHERS}:constant")

    assert "--resume" not in fail(*label_arguments(teacher, tmp_path / "run"), *constant)


def test_an_unknown_choice_is_a_usage_error(teacher, tmp_path):
    result = Result(*label_arguments(teacher, tmp_path / "run"), "--measure", "l1")

    assert result.code == 2 and "--measure" in result.err


def test_the_option_that_differs_is_named_when_a_run_is_resumed(tmp_path):
    options = (*label_arguments(f"{TEACHERS}:striped", tmp_path), "--limit", 80, "--budget", 3000)
    succeed(*options, "--classes", 10)
    next(tmp_path.glob("*.parquet")).unlink()

    def refusal(*changes: object) -> str:
        message = fail(*options, "--classes", 10, "--resume", *changes)
        return message.partition("different run: ")[2]

    advice = "; pass what the run was started with, or start another run in another folder"
    assert refusal("--budget", 2000).startswith(
        "settings.queries: was 3000, is 2000 (--budget); the budget of a run is fixed, because"
    )
    assert refusal("--classes", 12) == f"settings.classes: was 10, is 12 (--classes){advice}"
    succeed(*options, "--classes", 10, "--resume", "--consistency-checks", 40)


def test_the_summary_states_the_price_of_the_queries(teacher, tmp_path):
    printed = label(teacher, tmp_path / "run", "--queries-per-pair", 3, "--price-per-1000", 100)

    queries = read_manifest(tmp_path / "run")["totals"]["queries"]
    assert f"price {queries / 10:,.2f} at 100.00 per 1,000\n" in printed


@pytest.mark.parametrize("budget", [None, 6_000])
def test_the_command_and_the_function_continue_each_others_runs(tmp_path, budget):
    images = load_data("digits")
    settings = LabelSettings("bd", queries_per_pair=2, queries=budget)
    bounded = () if budget is None else ("--budget", budget)

    def command(teacher: str, out: Path, *options: object) -> Result:
        where = ("--teacher", f"{TEACHERS}:{teacher}", "--data", "digits", "--out", out)
        pairs = ("--measure", "bd", "--queries-per-pair", 2)
        return Result("label", *where, *pairs, *bounded, *options)

    assert "out of service" in command("TiringTeacher", tmp_path / "command").err
    continued = db3kd.label(
        CountingTeacher(), images, settings, out=tmp_path / "command", resume=True
    )
    with pytest.raises(db3kd.TeacherError, match="out of service"):
        db3kd.label(TiringTeacher(), images, settings, out=tmp_path / "function")
    assert command("CountingTeacher", tmp_path / "function", "--resume").code == 0

    for labels in (continued, load_labels(tmp_path / "function")):
        whole = db3kd.label(CountingTeacher(), images, settings)
        assert torch.equal(labels.decision, whole.decision)
        assert torch.equal(labels.distances, whole.distances)
