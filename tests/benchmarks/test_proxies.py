"""The benchmark of proxies: what it asks about, and the rows that it keeps."""

import itertools
import json

import pytest
import torch

pytest.importorskip("benchmarks.students.proxies", reason="benchmarks are not installed")

from benchmark_cases import small_trained

from benchmarks.common import record
from benchmarks.students import proxies


def test_every_image_is_asked_about_before_its_augmented_versions():
    answers = proxies._random_answers(small_trained(), torch.tensor([5, 2, 9]), 7, 0)
    assert answers.samples.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert answers.is_clean.tolist() == [True] * 3 + [False] * 4
    assert len(answers.training) == 7


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

    monkeypatch.setattr(proxies, "_agreement", None)
    proxies.main()
