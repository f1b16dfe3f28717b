"""Manifests: what one needs to know to repeat a run, and nothing of the machine it ran on."""

import dataclasses
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

import db3kd
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES
from db3kd.labels.labels import LABELS
from db3kd.pipelines.comparison.folder import TEST_DECISIONS
from db3kd.pipelines.query_rounds.answer_run import ANSWERS
from db3kd.storage.kinds import Kind, describe_format
from db3kd.storage.manifest import (
    MANIFEST,
    check_state,
    make_manifest,
    read_manifest,
    write_manifest,
)
from db3kd.storage.run_differences import describe_differences, differences
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


def test_a_path_that_is_not_utf_8_is_read_as_it_was_written(tmp_path, a_manifest):
    for name in ("caf\udce9", "naïve", "back\\slash"):
        write_manifest(tmp_path / MANIFEST, a_manifest | {"format": "f", "data": name})
        assert read_manifest(tmp_path)["data"] == name


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
    for name in db3kd.__all__:
        getattr(db3kd, name)  # imports the packages of all stages
    modules = [module for name, module in sys.modules.items() if name.startswith("db3kd.")]
    kinds = {each for module in modules for each in vars(module).values() if isinstance(each, Kind)}
    assert kinds >= {ANSWERS, AUGMENTED_DECISIONS, LABELS, PSEUDO_SAMPLES, TEST_DECISIONS}
    described = {describe_format(kind.format) for kind in kinds}
    assert len(described) == len(kinds) and not any("another kind" in each for each in described)


def test_a_manifest_of_another_version_says_who_wrote_it(tmp_path, a_manifest):
    write_manifest(tmp_path / "_manifest.json", {"format": "db3kd labels 1"} | a_manifest)
    message = "got 'db3kd labels 1', written by another version of db3kd; use that version"
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path, "db3kd labels 2")
    older = {"format": "db3kd labels 1"} | a_manifest | {"versions": {"db3kd": "0.0.1"}}
    write_manifest(tmp_path / "_manifest.json", older)
    message = r"written by db3kd 0\.0\.1; use that version, or start another run in another folder"
    with pytest.raises(ValueError, match=message):
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


PLAN = {"budget": 600, "strategy": "auto", "rounds": (95, 480), "held_out": 5}
CHOOSING = {"proxies": 2, "training": {"steps": 12, "seed": 0}}
LABELLING = {"measure": "mbd", "queries": 900, "seed": 0}


def described(was: dict, now: dict, kind: Kind = ANSWERS) -> str:
    """What is said about two runs with these settings, seeds (`seed`) and data (`data`)."""

    def manifest(seed=0, data="d", **settings):
        return make_manifest(
            settings, seed=seed, teacher_fingerprint="t", classes=None, data_fingerprint=data
        )

    return describe_differences(differences(manifest(**was), manifest(**now)), kind)


@pytest.mark.parametrize(
    ("kind", "was", "now", "listed"),
    [
        (
            ANSWERS,
            {"plan": PLAN, "choosing": CHOOSING},
            {"plan": PLAN | {"budget": 500, "rounds": (95, 380)}, "choosing": CHOOSING},
            "settings.plan.budget: was 600, is 500 (budget=)",
        ),
        (
            ANSWERS,
            {"plan": PLAN, "choosing": CHOOSING},
            {"plan": PLAN | {"strategy": "bd", "rounds": (95,)}, "labelling": LABELLING},
            'settings.plan.strategy: was "auto", is "bd" (strategy=)',
        ),
        (
            ANSWERS,
            {"plan": PLAN},
            {"plan": PLAN | {"strategy": "bd", "budget": 700}},
            'settings.plan.strategy: was "auto", is "bd" (strategy=); '
            "settings.plan.budget: was 600, is 700 (budget=)",
        ),
        (
            ANSWERS,
            {"plan": PLAN, "choosing": CHOOSING},
            {"plan": PLAN},
            'settings.choosing: was {"proxies": 2, "training": {"steps": 12, "seed": 0}}, is null',
        ),
        (
            LABELS,
            {"queries": 1000, "labelling": LABELLING},
            {"queries": 900, "labelling": LABELLING | {"queries": 800}},
            "settings.queries: was 1000, is 900 (queries=)",
        ),
        (
            LABELS,
            {"labelling": LABELLING, "surrogate": {"networks": 1, "queries": 90}},
            {"labelling": LABELLING | {"queries": 990}},
            'settings.surrogate: was {"networks": 1, "queries": 90}, is null (surrogate=)',
        ),
        (
            LABELS,
            {"labelling": LABELLING},
            {"seed": 1, "data": "drawn", "labelling": LABELLING | {"seed": 1, "measure": "bd"}},
            'seed: was 0, is 1 (seed=); settings.labelling.measure: was "mbd", is "bd" (measure=)',
        ),
        (
            LABELS,
            {"limit": None},
            {"limit": 50, "data": "others"},
            "settings.limit: was null, is 50 (limit=)",
        ),
        (
            PSEUDO_SAMPLES,
            {"synthesis": {"queries": 900}},
            {"synthesis": {"queries": 800}},
            "settings.synthesis.queries: was 900, is 800 (queries=)",
        ),
        (
            PSEUDO_SAMPLES,
            {"classes": 9, "synthesis": {"samples": 90}},
            {"classes": 8, "synthesis": {"samples": 80}},
            "settings.classes: was 9, is 8 (classes=)",
        ),
        (
            TEST_DECISIONS,
            {"budget": 900},
            {"budget": 800},
            "settings.budget: was 900, is 800 (budget=)",
        ),
        (
            AUGMENTED_DECISIONS,
            {"classes": 9, "surrogate": {"networks": 2}},
            {"classes": 8, "surrogate": {"networks": 1}},
            "settings.classes: was 9, is 8 (classes=)",
        ),
    ],
)
def test_a_message_lists_what_was_changed_and_not_what_follows(kind, was, now, listed):
    if listed.endswith(("(budget=)", "(queries=)")) and ";" not in listed:
        advice = "the budget of a run is fixed, because it decides which queries are sent"
        if "plan" in was:
            advice = "a run cannot be continued with a smaller budget: pass the old one,"
        assert described(was, now, kind).startswith(f"{listed}; {advice}")
        return
    advice = "pass what the run was started with, or start another run in another folder"
    assert described(was, now, kind) == f"{listed}; {advice}"


def test_other_images_are_said_to_have_changed_and_not_the_plan():
    was, now = PLAN | {"images": 100}, PLAN | {"images": 120, "held_out": 6}
    assert described({"plan": was}, {"plan": now, "data": "others"}) == (
        'data: was "d", is "others"; settings.plan.images: was 100, is 120; the images or their '
        "labels are not those that the run was started with (their dtype and shape count too): "
        "restore them, or start another run in another folder"
    )


def test_at_most_five_differences_are_listed():
    text = described({}, {"seed": 1} | {name: 1 for name in "abcdefg"})
    assert text.startswith("seed: was 0, is 1 (seed=); settings.a: was null, is 1 (a=); ")
    assert "settings.d: was null, is 1 (d=); and 3 more; pass what" in text


def test_images_that_are_the_same_may_come_from_anywhere():
    loaded = {"source": {"data": "digits", "split": "train"}}
    elsewhere = {"source": {"data": "mine", "split": "test"}}
    passed = {"source": {"data": "images"}}
    for other in (elsewhere, passed):
        assert differences(
            {"settings": loaded, "data": "d"}, {"settings": other, "data": "d"}
        ) == []  # fmt: skip
    assert "split" in described(loaded, elsewhere | {"data": "others"})
    assert "split" not in described(loaded, passed | {"data": "others"})


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        (LABELS, {"state": "done"}, "entry state: expected 'running' or 'finished', got 'done'"),
        (LABELS, {"started": 5}, "entry started: expected a time, got 5"),
        (LABELS, {"settings": None}, "entry settings: expected a mapping"),
        (
            LABELS,
            {"state": "finished"},
            "entry totals: expected the totals of a finished run, got none",
        ),
        (
            LABELS,
            {"state": "finished", "totals": {"samples": -1}},
            "entry totals.samples: expected a count, got -1",
        ),
        (
            LABELS,
            {"resumed": [{"queries_in_flight": "2"}]},
            "entry resumed: expected a list of entries with the count queries_in_flight",
        ),
        (LABELS, {"changed_teachers": 5}, "entry changed_teachers: expected a list of entries"),
        (
            LABELS,
            {"surrogate": [{"queries": -1}]},
            "entry surrogate: expected a list of entries with the count queries",
        ),
        (
            ANSWERS,
            {"larger_budgets": [{"budget": 5}]},
            "entry larger_budgets: expected a list of entries with the counts budget and "
            "held_out_augmented",
        ),
    ],
)
def test_a_damaged_entry_that_readers_rely_on_is_named(tmp_path, a_manifest, kind, damage, message):
    valid = {"state": "running", "started": "2026-01-01T00:00:00+00:00"} | a_manifest
    check_state(tmp_path, valid, kind)

    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        check_state(tmp_path, valid | damage, kind)
