"""A run that is refused, because it would differ, leaves all folders byte for byte as they were.

Commands with several folders compare all of them before they open the first one.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distill_cases import images
from label_runs import write_run
from resumable_cases import (
    COMMANDS,
    Function,
    compare,
    distill_distances,
    distill_pseudo_samples,
    label,
    quick_settings,
    synthesize,
)

import db3kd
from db3kd.data.image_set import ImageSet
from db3kd.data.source import Source
from db3kd.pipelines.comparison.prepared import prepare_comparison
from db3kd.planning import Strategy
from db3kd.storage.manifest import MANIFEST
from db3kd.teachers import TeacherError

pytest.importorskip("pyarrow")

NAMES = ("cat", "dog", "bird")
Run = Callable[..., object]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def begin(run: Run, out: Path, share: float, **options: Any) -> Function:
    """Runs a command until a share of its queries is answered; 1 for all."""
    function = Function()
    names = options.pop("class_names", None)
    if share < 1:
        undisturbed = Function()
        run(undisturbed.teacher("before", names), out.with_name("whole"), **options)
        function.limit = int(share * undisturbed.answers)
        with pytest.raises(TeacherError, match="the service is down"):
            run(function.teacher("before", names), out, **options)
        function.limit = 10**9
    else:
        run(function.teacher("before", names), out, **options)
    return function


def check_refusal(run: Run, function: Function, out: Path, message: str, **options: Any) -> None:
    """Resumes a run with the same and with an accepted teacher; both have to change nothing."""
    before, asked = contents(out), function.answers
    names = options.pop("class_names", None)
    for fingerprint in ("before", "after"):
        options["accept_changed_teacher"] = fingerprint == "after"
        with pytest.raises(ValueError, match=message):
            run(function.teacher(fingerprint, names), out, resume=True, **options)
        assert contents(out) == before
    assert function.answers == asked


@pytest.mark.parametrize("run", COMMANDS)
@pytest.mark.parametrize("share", [0.3, 0.9, 1])
def test_other_settings_change_nothing(tmp_path: Path, run: Run, share: float) -> None:
    function = begin(run, tmp_path / "run", share)
    check_refusal(run, function, tmp_path / "run", "seed: was 0, is 1", seed=1)


def test_other_labels_of_images_that_were_loaded_by_name_are_named(tmp_path: Path) -> None:
    pixels, labels = images(30).read(range(30)).numpy(), np.arange(30) % 3
    np.savez(tmp_path / "real.npz", x_train=pixels, y_train=labels)
    settings = db3kd.LabelSettings(measure="bd", queries=1000)
    function, out = Function(), tmp_path / "run"
    write_run(out, function.teacher("before"), Source(str(tmp_path / "real.npz")), settings)

    def passed(numbers: np.ndarray) -> ImageSet:
        return ImageSet.from_arrays(pixels, numbers, name="passed")

    asked = function.answers
    message = r"run: data: was [^;]*; the images or their labels are"
    with pytest.raises(ValueError, match=message) as raised:
        other = passed((labels + 1) % 3)
        db3kd.label(function.teacher("before"), other, settings, out=out, resume=True)
    assert "split" not in str(raised.value)
    db3kd.label(function.teacher("before"), passed(labels), settings, out=out, resume=True)
    assert function.answers == asked


@pytest.mark.parametrize("share", [0.9, 1])
@pytest.mark.parametrize(
    "run", [label, synthesize, distill_distances, distill_pseudo_samples, compare]
)
def test_another_name_of_a_class_changes_nothing_until_it_is_accepted(
    tmp_path: Path, run: Run, share: float
) -> None:
    out, renamed = tmp_path / "run", ("cat", "hound", "bird")
    function = begin(run, out, share, class_names=NAMES)
    before, asked = contents(out), function.answers
    message = 'was {"1": "dog"}, is {"1": "hound"}; .* accept_changed_teacher=True'
    with pytest.raises(ValueError, match=message):
        run(function.teacher("before", renamed), out, resume=True)
    assert contents(out) == before and function.answers == asked

    run(function.teacher("before", renamed), out, resume=True, accept_changed_teacher=True)

    manifests = [json.loads(file.read_bytes()) for file in out.rglob(MANIFEST)]
    changes = [each["changed_teachers"] for each in manifests if "changed_teachers" in each]
    assert changes and all(each[-1]["class_names"] == list(renamed) for each in changes)
    assert (function.answers == asked) is (share == 1)
    run(function.teacher("before", renamed), out, resume=True)


def prepared_comparison(
    teacher: Any, out: Path, strategies: Sequence[Strategy], given: ImageSet | None = None
) -> Any:
    return prepare_comparison(
        teacher, given or images(), budget=60, strategies=strategies, student="linear", seeds=2,
        settings=quick_settings(0), out=out, resume=True, test=images(), ask_about_test=True,
    )  # fmt: skip


def test_a_student_of_another_run_is_found_before_new_students_ask(tmp_path: Path) -> None:
    out, strategies = tmp_path / "run", ("augmented", "decisions")
    function = begin(compare, out, 0.9)
    manifest = out / "decisions-1" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"seed": 7}))
    message = "decisions-1: holds a different run: seed: was 7, is 1"
    check_refusal(compare, function, out, message, strategies=strategies)
    # as --dry-run does
    prepared = prepared_comparison(function.teacher("before"), out, strategies)
    with pytest.raises(ValueError, match=message):
        prepared.count_queries()


def test_students_are_compared_without_reading_the_images_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = begin(compare, tmp_path / "run", 1)
    named = images().with_labels(torch.arange(len(images())) % 3, NAMES)
    teacher = function.teacher("before", NAMES)
    prepared = prepared_comparison(teacher, tmp_path / "run", ("decisions",), named)
    read, fingerprint = list[ImageSet](), ImageSet.fingerprint
    monkeypatch.setattr(
        ImageSet, "fingerprint", lambda images: read.append(images) or fingerprint(images)
    )
    runs = list(prepared.expected_runs())
    assert [run.path.name for run in runs] == ["run", "decisions-0", "decisions-1"]
    assert sum(each is prepared.images for each in read) == 1
    assert len(read) == 2  # those to ask about, and those to test on


@pytest.mark.parametrize("run", [compare, distill_distances])
def test_a_damaged_manifest_of_a_later_stage_changes_nothing(tmp_path: Path, run: Run) -> None:
    function = begin(run, tmp_path / "run", 1)
    *_, last = sorted((tmp_path / "run").glob(f"*/{MANIFEST}"))
    last.write_text("{}")
    check_refusal(run, function, tmp_path / "run", "expected the manifest of a run")
