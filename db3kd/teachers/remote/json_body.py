"""The bodies of JSON requests."""

from collections.abc import Callable
from functools import partial
from typing import Any

from db3kd.extras import import_extra


def json_encoder() -> Callable[[Any], bytes]:
    """Returns a function that writes a JSON value as UTF-8, with NumPy arrays as nested lists.

    A float32 is written in the fewest digits that are read as the same float32, which take half the
    bytes of those of a float64. Arrays must be C-contiguous.

    Example:
        >>> json_encoder()({"instances": np.array([[0.1]], np.float32)})
        b'{"instances":[[0.1]]}'

    Raises:
        ModuleNotFoundError: If orjson is not installed.
    """
    orjson = import_extra("orjson", "remote")
    return partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
