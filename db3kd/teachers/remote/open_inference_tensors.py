"""The addresses and tensors of the Open Inference Protocol v2, for both transports."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np

from db3kd.errors import ArgumentError
from db3kd.teachers.base import TeacherError
from db3kd.teachers.remote.http import split_url, unreadable
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
"""The NumPy dtype names of the protocol's data types."""

_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
_HTTP_PATH = r"(.*)/v2/models/([^/]+)(?:/versions/([^/]+))?"
_GRPC_PATH = r"()/([^/]+)(?:/([^/]+))?"


@dataclass(frozen=True)
class ModelAddress:
    """The address of a model on a server.

    Example:
        >>> ModelAddress.parse("http://host:8000/v2/models/digits/versions/3").version
        '3'

    Attributes:
        scheme: "http", "https", "grpc" or "grpcs".
        host: The host and the port.
        base: Everything before `/v2` or the model, such as "http://host:8000".
        model: The name of the model.
        version: The version of the model, or "" for the server's choice.
    """

    scheme: str
    host: str
    base: str
    model: str
    version: str

    @classmethod
    def parse(cls, url: str) -> "ModelAddress":
        """Parses the URL of a served model.

        Args:
            url: `http://host:8000/v2/models/NAME`, optionally with `/versions/VERSION`, or
                `grpc://host:8001/NAME`, optionally with `/VERSION`. `https://` and `grpcs://` use
                TLS.

        Raises:
            ValueError: If the URL has another form or holds a password.
        """
        parts = split_url(url, ("http", "https", "grpc", "grpcs"))
        grpc = parts.scheme.startswith("grpc")
        found = re.fullmatch(_GRPC_PATH if grpc else _HTTP_PATH, parts.path.rstrip("/"))
        if not found or parts.query or parts.fragment:
            raise ArgumentError(
                "url",
                f"expected {parts.scheme}://host:port"
                f"{'/MODEL' if grpc else '/v2/models/MODEL'}, got {url!r}; for another "
                "service, write a description file with the keys url and [rest]",
            )
        base, model, version = found.groups(default="")
        host = f"{parts.scheme}://{parts.netloc}{base}"
        return cls(parts.scheme, parts.netloc, host, unquote(model), unquote(version))

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme.endswith("s")

    def __str__(self) -> str:
        version = f" version {self.version}" if self.version else ""
        return f"{self.model}{version} at {self.scheme}://{self.host}"


def json_request(array: np.ndarray, signature: ModelSignature, request_id: str) -> dict[str, Any]:
    """Returns a request without binary data, to be written as JSON."""
    tensor = {
        "name": signature.input.name,
        "shape": list(array.shape),
        "datatype": _DATATYPES[signature.input.dtype],
        "data": array.reshape(-1),
    }
    output = {"name": signature.output.name, "parameters": {"binary_data": False}}
    return {"id": request_id, "inputs": [tensor], "outputs": [output]}


def input_tensor(triton: Any, array: np.ndarray, signature: ModelSignature) -> Any:
    """Returns a tritonclient input tensor that is sent as bytes.

    Args:
        triton: `tritonclient.http` or `tritonclient.grpc`.
        array: The model's input, with the batch first.
        signature: Names the input and its dtype.
    """
    tensor = triton.InferInput(
        signature.input.name, list(array.shape), _DATATYPES[signature.input.dtype]
    )
    tensor.set_data_from_numpy(array)
    return tensor


def output_array(answer: Any, name: str, who: str) -> np.ndarray:
    """Returns an output of a tritonclient answer.

    Raises:
        TeacherError: If the answer cannot be read or does not hold this output.
    """
    try:
        array = answer.as_numpy(name)
    except Exception as error:  # the server chooses shape, type and content
        raise unreadable(who, error) from None
    if array is None:
        raise TeacherError(f"{who}: expected the output {name!r} in the answer, found none")
    return array
