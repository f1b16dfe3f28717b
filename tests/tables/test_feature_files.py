import json

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from table_cases import any_features

from db3kd.tables import Feature, Features


@given(features=any_features())
@examples(max_examples=50, deadline=None)
def test_saved_features_are_loaded_as_they_were(tmp_path_factory, features):
    path = features.save(tmp_path_factory.mktemp("features") / "features.json")
    loaded = Features.load(path)
    assert loaded == features
    assert loaded.fingerprint() == features.fingerprint()


@pytest.mark.parametrize(
    ("kind", "lower", "upper", "dtype", "decoded"),
    [
        ("integer", 0, 300, "uint8", [0, 255]),
        ("integer", -20, -10, "uint8", [0, 0]),
        ("continuous", 300.5, 400.5, "uint8", [255, 255]),
        ("continuous", 0, 1e6, "float16", [0, 65504]),
        ("continuous", 0, 0.5, "Sparse[float64, nan]", [0, 0.5]),
        ("integer", 0, 5, "category", [0, 5]),
    ],
)
def test_stored_features_may_exceed_their_dtype(kind, lower, upper, dtype, decoded):
    entry = {"kind": kind, "lower": lower, "upper": upper, "dtype": dtype}
    features = Features.from_json(json.dumps({"table": "array", "features": {"a": entry}}))
    assert features.decode(torch.tensor([[0.0], [1.0]]))[:, 0].tolist() == decoded
    with pytest.raises(ValueError, match="feature 'a': expected"):
        getattr(Feature, kind)("a", lower, upper, dtype)


def test_features_are_read_from_toml(tmp_path):
    path = tmp_path / "wine.toml"
    path.write_text(
        """
        table = "frame"
        [features.alcohol]
        kind = "continuous"
        lower = 11
        upper = 14.9
        [features.rooms]
        kind = "integer"
        lower = 1
        upper = 12
        dtype = "float64"
        [features.colour]
        kind = "categorical"
        values = ["red", "white"]
        """
    )
    assert Features.load(path) == Features(
        [
            Feature.continuous("alcohol", 11, 14.9),
            Feature.integer("rooms", 1, 12, "float64"),
            Feature.categorical("colour", ["red", "white"]),
        ],
        as_frame=True,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as json"),
        ("[]", "expected a table 'features'"),
        ('{"features": {"a": 3}}', "features.a: expected a table with the key kind, got 3"),
        ('{"features": {}, "tabel": "frame"}', "expected the keys table and features, got 'tabel'"),
        ('{"features": {}, "table": "list"}', "table: expected array or frame, got 'list'"),
        ('{"features": {"a": {"kind": "integer", "low": 1}}}', "features.a: .*got 'low'"),
        ('{"features": {"a": {"kind": "integer", "lower": 1}}}', "expected a number as upper"),
        ('{"features": {"a": {"kind": "categorical", "values": 3}}}', "a sequence of values"),
        (
            '{"features": {"a": {"kind": "integer", "lower": 1, "upper": 2, "dtype": 3}}}',
            "features.a: dtype: expected the name of a dtype, got 3",
        ),
    ],
)
def test_files_that_do_not_describe_features_are_refused(tmp_path, content, message):
    path = tmp_path / "features.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Features.load(path)
    assert str(path) in str(caught.value)


def test_paths_that_are_no_files_of_features_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="features: there is no file"):
        Features.load(tmp_path / "none.json")
    (tmp_path / "features.yaml").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"expected a \.json, \.toml or \.safetensors file"):
        Features.load(tmp_path / "features.yaml")
    with pytest.raises(ValueError, match=r"expected a path that ends in \.json"):
        Features([Feature.integer("a", 0, 1)]).save(tmp_path / "features.toml")
