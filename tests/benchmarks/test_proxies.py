"""What proxies are worth: what the benchmarks ask about, and the rows that they keep."""

import itertools
import json

import pytest

pytest.importorskip("benchmarks.students.proxies", reason="benchmarks are not installed")

from benchmark_cases import small_trained

from benchmarks.common import record
from benchmarks.students import proxies, taught
from benchmarks.students.other_images import OtherImages


def test_every_image_is_asked_about_before_its_augmented_versions():
    answers = OtherImages(small_trained(), 3, 0).answers(7).training
    assert answers.samples.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert answers.is_clean.tolist() == [True] * 3 + [False] * 4


def test_rows_are_kept_after_each_proxy_and_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(proxies, "trained_teacher", lambda options: small_trained())
    words = "proxies --images 20 --per-sample 2 4 --steps 2 --proxy mlp-quarter --save kept"
    monkeypatch.setattr("sys.argv", words.split())

    proxies.main()

    rows = json.loads((tmp_path / "kept.json").read_text())["rows"]
    cells = [(row["per_sample"], row["soft_labels"]) for row in rows]
    assert cells == list(itertools.product((2.0, 4.0), (False, True)))
    assert all(0 <= row["agreement"] <= 1 for row in rows)

    monkeypatch.setattr(proxies, "_agreement", lambda *arguments, **cell: pytest.fail("measured"))
    proxies.main()


def test_students_of_the_same_answers_are_measured_with_and_without_proxies(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(taught, "trained_teacher", lambda options: small_trained())
    words = "taught --images 20 --per-sample 2 --steps 2 --seeds 1 --students mlp-quarter mlp-half"
    monkeypatch.setattr("sys.argv", [*words.split(), "--runs", str(tmp_path), "--save", "kept"])

    taught.main()

    rows = json.loads((tmp_path / "kept.json").read_text())["rows"]
    cells = [(row["student"], row["proxies"]) for row in rows]
    assert cells == list(itertools.product(("mlp-quarter", "mlp-half"), (0, 2)))
    assert all(0 <= row["agreement"] <= 1 for row in rows)
    folder = tmp_path / "generated" / "20-2.0-mlp-0"
    assert {file.name for file in folder.glob("proxy-*")} == {
        "proxy-0.safetensors",
        "proxy-1.safetensors",
    }
