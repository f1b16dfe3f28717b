"""The Python examples of docs/tabular.md run, in their order."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tabular.md"


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for limit in ("LEAST_DEFAULT_STEPS", "MOST_DEFAULT_STEPS"):
        monkeypatch.setattr(f"db3kd.pipelines.distill_settings.{limit}", 300)
    names: dict[str, object] = {}

    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(PAGE), "exec"), names)

    assert names["student"].features == names["teacher"].features
    assert names["result"].queries == 5000
    assert names["seen"].shape == (80, 3)


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_its_file_describes_the_features_of_its_example(tmp_path, suffix):
    from db3kd.tables import Feature, Features

    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "features.toml").write_text(text)
    features = Features.load(tmp_path / "features.toml")
    if suffix == "json":
        features = Features.load(features.save(tmp_path / "features.json"))
    assert features.as_frame
    assert list(features) == [
        Feature.integer("age", 18, 99),
        Feature.continuous("income", 0, 250_000),
        Feature.categorical("plan", ["basic", "pro", "team"]),
    ]
