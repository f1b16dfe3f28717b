import subprocess
import sys

import pytest

import db3kd


def test_every_public_name_is_there_and_documented():
    assert sorted(db3kd._MODULE_OF) == sorted(db3kd.__all__)
    for name in db3kd.__all__:
        assert getattr(db3kd, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'students'"):
        _ = db3kd.students


def test_labelling_imports_none_of_the_extras():
    extras = (
        *("accelerate", "datasets", "matplotlib", "pyarrow", "rich", "sklearn", "typer"),
        *("aiohttp", "onnxruntime", "tenacity", "tritonclient"),
    )
    code = f"import sys, db3kd; db3kd.label; print([m for m in {extras} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
