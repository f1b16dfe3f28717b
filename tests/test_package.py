import pytest

import db3kd


def test_every_public_name_is_there_and_documented():
    assert sorted(db3kd._MODULE_OF) == sorted(db3kd.__all__)
    for name in db3kd.__all__:
        assert getattr(db3kd, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'students'"):
        _ = db3kd.students
