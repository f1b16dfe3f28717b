"""What both transports of the Open Inference Protocol v2 share: addresses, tensors, limits."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np

from db3kd.teachers.base import TeacherError
from db3kd.teachers.remote.http import malformed, split_url
from db3kd.teachers.signature import ModelSignature

DTYPES = {
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "BYTES": "text",
}
"""The protocol's data types as NumPy calls them."""

_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
_HTTP_PATH = r"(.*)/v2/models/([^/]+)(?:/versions/([^/]+))?"
_GRPC_PATH = r"()/([^/]+)(?:/([^/]+))?"


@dataclass(frozen=True)
class ModelAddress:
    """Where a model is served.

    http://host:8000/v2/models/NAME, also …/NAME/versions/VERSION; https://…
    grpc://host:8001/NAME, also …/NAME/VERSION; grpcs://… for TLS
    """

    scheme: str
    host: str
    base: str
    model: str
    version: str

    @classmethod
    def parse(cls, url: str) -> "ModelAddress":
        """Raises ValueError for another form, and for a URL with a password in it."""
        parts = split_url(url, ("http", "https", "grpc", "grpcs"))
        grpc = parts.scheme.startswith("grpc")
        found = re.fullmatch(_GRPC_PATH if grpc else _HTTP_PATH, parts.path.rstrip("/"))
        if not found or parts.query or parts.fragment:
            raise ValueError(
                f"url: expected {parts.scheme}://host:port"
                f"{'/MODEL' if grpc else '/v2/models/MODEL'}, got {url!r}"
            )
        base, model, version = found.groups(default="")
        host = f"{parts.scheme}://{parts.netloc}{base}"
        return cls(parts.scheme, parts.netloc, host, unquote(model), unquote(version))

    @property
    def secure(self) -> bool:
        return self.scheme.endswith("s")

    def __str__(self) -> str:
        version = f" version {self.version}" if self.version else ""
        return f"{self.model}{version} at {self.scheme}://{self.host}"


def input_tensor(triton: Any, array: np.ndarray, contract: ModelSignature, **options: Any) -> Any:
    tensor = triton.InferInput(
        contract.input.name, list(array.shape), _DATATYPES[contract.input.dtype]
    )
    tensor.set_data_from_numpy(array, **options)
    return tensor


def output_array(answer: Any, name: str, who: str) -> np.ndarray:
    try:
        array = answer.as_numpy(name)
    except Exception as error:  # shape, type and content are the server's
        raise malformed(who, error) from None
    if array is None:
        raise TeacherError(f"{who}: expected the output {name!r} in the answer, which has none")
    return array
