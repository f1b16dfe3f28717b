"""Manifests: what one needs to know to repeat a run, and nothing of the machine it ran on."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from db3kd.data.pseudo_samples import PSEUDO_SAMPLES
from db3kd.labelling.labels import LABELS
from db3kd.pipelines.asking.answer_run import ANSWERS
from db3kd.pipelines.comparison.folder import TEST_DECISIONS
from db3kd.storage.manifest import describe_format, make_manifest, read_manifest, write_manifest
from db3kd.storage.run_differences import (
    DecidingEntry,
    Difference,
    describe_differences,
    differences,
)
from db3kd.surrogates.augmented_decisions import AUGMENTED_DECISIONS


@pytest.fixture
def a_manifest() -> dict:
    settings = {"noise": "gaussian", "sign_opt": {"steps": (1, 2)}}
    return make_manifest(
        settings, seed=7, teacher_fingerprint="t", classes=None, data_fingerprint="d"
    )


def test_the_manifest_names_versions(a_manifest):
    versions = a_manifest["versions"]
    assert set(versions) == {"db3kd", "torch", "numpy", "python"}
    assert versions["torch"].startswith(torch.__version__.split("+")[0])


def test_the_manifest_names_no_path_of_the_machine(tmp_path):
    @dataclasses.dataclass
    class Settings:
        teacher: Path
        data: str
        noise: str
        radii: tuple[float, ...]

    content = make_manifest(
        Settings(
            tmp_path / "teacher.safetensors", str(tmp_path / "idx"), "gaussian", (0.5, math.inf)
        ),
        seed=0,
        teacher_fingerprint="t",
        classes=None,
        data_fingerprint="d",
    )
    assert content["settings"] == {
        "teacher": "teacher.safetensors",
        "data": "idx",
        "noise": "gaussian",
        "radii": [0.5, "inf"],
    }
    assert str(tmp_path) not in json.dumps(content)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 5}', "{}"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "_manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json: expected"):
        read_manifest(tmp_path, "db3kd labels 2")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("db3kd answers 2", r"a run of db3kd distill \(answers\)"),
        ("db3kd others 2", r"a run of another kind \(db3kd others 2\)"),
        ("another", r"a run of another kind \(another\)"),
    ],
)
def test_a_manifest_of_another_kind_says_which_and_no_version(tmp_path, a_manifest, found, words):
    write_manifest(tmp_path / "_manifest.json", {"format": found} | a_manifest)
    message = rf"expected a run of db3kd label \(labels\), got {words}$"
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path, "db3kd labels 2")


def test_every_kind_of_run_is_described():
    kinds = (ANSWERS, AUGMENTED_DECISIONS, LABELS, PSEUDO_SAMPLES, TEST_DECISIONS)
    described = {describe_format(kind.format) for kind in kinds}
    assert len(described) == len(kinds) and not any("another kind" in each for each in described)


def test_a_manifest_of_another_version_says_who_wrote_it(tmp_path, a_manifest):
    write_manifest(tmp_path / "_manifest.json", {"format": "db3kd labels 1"} | a_manifest)
    with pytest.raises(ValueError, match="got 'db3kd labels 1', written by another build"):
        read_manifest(tmp_path, "db3kd labels 2")
    older = {"format": "db3kd labels 1"} | a_manifest | {"versions": {"db3kd": "0.0.1"}}
    write_manifest(tmp_path / "_manifest.json", older)
    with pytest.raises(ValueError, match=r"written by db3kd 0\.0\.1; read it with that version"):
        read_manifest(tmp_path, "db3kd labels 2")


def test_a_run_does_not_differ_from_itself_on_another_machine(tmp_path, a_manifest):
    write_manifest(tmp_path / "_manifest.json", {"format": "f"} | a_manifest)
    elsewhere = a_manifest | {"platform": "another", "versions": {}}
    assert differences(read_manifest(tmp_path), elsewhere) == []


def test_each_difference_between_runs_is_named(a_manifest):
    other = make_manifest(
        {"noise": "rademacher", "sign_opt": {"steps": (1, 2), "rounds": 3}},
        seed=8,
        teacher_fingerprint="t",
        classes=None,
        data_fingerprint=None,
    )
    assert list(map(str, differences(a_manifest, other))) == [
        'data: was "d", is null',
        "seed: was 7, is 8",
        'settings.noise: was "gaussian", is "rademacher"',
        "settings.sign_opt.rounds: was null, is 3",
    ]
    assert differences(a_manifest, a_manifest | {"seed": 8}, apart_from=("seed",)) == []


def test_what_follows_from_another_difference_is_not_listed():
    planned = {"followers": ("settings.plan.",), "optional": ("settings.choosing.", "settings.lab")}
    deciding = (
        DecidingEntry("settings.plan.budget", **planned),
        DecidingEntry("settings.plan.strategy", **planned, is_argument=False),
        DecidingEntry("settings.choosing.proxies", optional=("settings.choosing.",)),
    )
    plan = {"budget": 600, "strategy": "auto", "rounds": (95, 480), "held_out": 5}
    choosing = {"proxies": 2, "training": {"steps": 12, "seed": 0}}

    def manifest(**settings):
        return make_manifest(
            settings, seed=0, teacher_fingerprint="t", classes=None, data_fingerprint="d"
        )

    def differing(was, now):
        return list(map(str, differences(was, now, deciding=deciding)))

    stored = manifest(plan=plan, choosing=choosing)
    bigger = plan | {"budget": 700, "rounds": (95, 580)}
    other = choosing | {"training": {"steps": 13, "seed": 0}}
    assert differing(stored, manifest(plan=bigger, choosing=other)) == [
        "settings.choosing.training.steps: was 12, is 13",
        "settings.plan.budget: was 600, is 700",
    ]
    labelled = plan | {"strategy": "bd", "rounds": (95,)}
    assert differing(stored, manifest(plan=labelled, labelling={"queries": 5})) == [
        'settings.plan.strategy: was "auto", is "bd"'
    ]
    assert differing(stored, manifest(plan=plan | {"rounds": (9,)})) == [
        "settings.choosing.proxies: was 2, is null",
        "settings.plan.rounds: was [95, 480], is [9]",
    ]
    assert len(differences(stored, manifest(plan=bigger, choosing=choosing))) == 2, "all of them"
    found = [Difference(f"settings.plan.{name}", "1", "2") for name in ("budget", "strategy")]
    assert describe_differences(found, deciding).startswith(
        "settings.plan.budget: was 1, is 2 (budget=); settings.plan.strategy: was 1, is 2; pass"
    )


def test_a_value_that_reads_like_a_message_is_shown_as_a_value():
    """Only the names and values of entries decide what is advised, not the text around them."""
    deciding = (DecidingEntry("settings.surrogate.queries", argument="surrogate"),)
    odd = Difference("settings.surrogate.queries", '"x: was null, is y"', "5")
    assert "(surrogate=)" not in describe_differences([odd], deciding)
    absent = Difference("settings.surrogate.queries", "null", "5")
    assert "(surrogate=)" in describe_differences([absent], deciding)
