"""The file of features in docs/tabular.md; its Python blocks run in docs/test_code_blocks.py."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tabular.md"


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
