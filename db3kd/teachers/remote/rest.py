"""Teachers behind a JSON service, for which the user declares the request and the answer.

A request is JSON with a placeholder for the images:

    {"instances": "$images"}                all images of a request, as nested lists of numbers
    {"instances": [{"pixels": "$image"}]}   a list with one entry, which is repeated for each image
    {"pixels": "$image"}                    one image, so each request holds one image

A path locates the answer. Its steps are separated by dots: a key, the index of a list entry, or `*`
for every entry of a list. `predictions.*.label` reads {"predictions": [{"label": 7}, …]}.
"""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from db3kd.errors import ArgumentError
from db3kd.teachers.base import TeacherError
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote.event_loop import EventLoopThread
from db3kd.teachers.remote.http import (
    HttpClient,
    json_encoder,
    max_answer_bytes,
    split_url,
    unreadable,
)
from db3kd.teachers.remote.png_images import as_png_texts, png_steps
from db3kd.teachers.remote.remote_teacher import RemoteTeacher
from db3kd.teachers.remote.request_settings import RequestSettings
from db3kd.teachers.remote.secret_header import SecretHeader
from db3kd.teachers.signature import ModelOverrides, resolve
from db3kd.wording import counted, shortened

_ALL, _ONE = "$images", "$image"
_SHOWN = 40
"""Characters of a key that an error shows."""

_ALL_PNG, _ONE_PNG = "$images_png_base64", "$image_png_base64"


def rest_teacher(
    url: str,
    request: Any,
    answer: str,
    overrides: ModelOverrides | None = None,
    preprocessing: Preprocessing | None = None,
    requests: RequestSettings | None = None,
    *,
    secret: SecretHeader | None = None,
    fingerprint: str | None = None,
) -> RemoteTeacher:
    """Opens a teacher behind a JSON service. Nothing is sent before the first query.

    Example:
        >>> teacher = rest_teacher(
        ...     "http://localhost:8501/v1/models/digits:predict",
        ...     {"instances": "$images"},
        ...     "predictions",
        ...     ModelOverrides(image_shape=(1, 28, 28), classes=10),
        ... )

    Args:
        url: The address for POST requests.
        request: The JSON value to post, with a placeholder for the images; see `Template`.
        answer: The path to the classes, the class names or the scores; see `AnswerPath`.
        overrides: The image shape, the number of classes and so on; the service declares nothing.
        preprocessing: The steps from db3kd's images to the model's input.
        requests: How requests are sent.
        secret: A header to send with every request.
        fingerprint: A text that changes with the model. By default it is derived from the address
            and the request.

    Raises:
        ValueError: If something is not known, or if the request or the path is invalid.
    """
    parts = split_url(url, ("http", "https"))
    name = f"{parts.path} at {parts.scheme}://{parts.netloc}"  # a query may hold a key
    overrides, preprocessing = overrides or ModelOverrides(), preprocessing or Preprocessing()
    template, requests = Template(request), requests or RequestSettings()
    if template.single:
        requests = requests.with_batch(1)
    who = f"teacher {name}"
    if overrides.input or overrides.output:
        raise ArgumentError(
            "input, output",
            "a JSON service does not declare tensors; use request and answer instead",
        )
    named = dataclasses.replace(overrides, input="request", output=answer)
    may_quote = secret is None and "?" not in url
    signature = resolve(who, (), (), named, preprocessing, quote=may_quote)
    shape = signature.image_shape
    if template.png:
        bounds = signature.preprocessing.bounds
        preprocessing = png_steps(dataclasses.replace(preprocessing, bounds=bounds), shape)
    else:
        preprocessing = signature.preprocessing
    service = _RestService(
        url,
        name,
        template,
        AnswerPath(answer),
        signature.classes,
        preprocessing,
        HttpClient(requests.in_flight, requests.timeout, secret),
        may_quote,
    )
    return RemoteTeacher(
        service, EventLoopThread(), shape, signature.reader, preprocessing, requests, fingerprint
    )


class Template:
    """A JSON value with one placeholder for images.

    `$images` stands for all images of a request as nested lists of numbers, `$images_png_base64`
    for a list of PNG files in base64. `$image` and `$image_png_base64` stand for one image; as the
    only entry of a list, or inside of it, they are repeated for each image of a request. Other text
    may be around `$image_png_base64`: `data:image/png;base64,$image_png_base64`.

    Example:
        >>> Template({"instances": "$images"}).fill(np.zeros((2, 1)))
        {'instances': array([[0.], [0.]])}

    Args:
        value: The value, with a placeholder in it.

    Attributes:
        value: The value.
        single: Whether each request holds a single image.
        png: Whether the images are PNG files.

    Raises:
        ValueError: If there is not exactly one placeholder.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        placeholders = list(_placeholders(value))
        if len(placeholders) != 1:
            raise ArgumentError(
                "request",
                f"expected one placeholder, {_ALL!r} for all images of a request or "
                f"{_ONE!r} for one as lists of numbers, {_ALL_PNG!r} or {_ONE_PNG!r} as PNG files "
                f"in base64, got {len(placeholders) or 'none'}; put it in the place of the images",
            )
        ((kind, self.png),) = placeholders
        self.single = kind == "single"

    def fill(self, images: np.ndarray) -> Any:
        """Returns the value with the images in place of the placeholder.

        Args:
            images: [N, *input_shape]; [N, H, W, C] uint8 for PNG files.
        """
        return _fill(self.value, as_png_texts(images) if self.png else images)


class AnswerPath:
    """A path into a JSON value: keys, list indices and `*`, separated by dots.

    Example:
        >>> AnswerPath("predictions.*.label").find({"predictions": [{"label": 7}]}, "teacher")
        [7]

    Args:
        path: The path.

    Attributes:
        text: The path.

    Raises:
        ValueError: If the path is not a text or has an empty step.
    """

    def __init__(self, path: str) -> None:
        if not isinstance(path, str) or not all(path.split(".")):
            raise ArgumentError(
                "answer", f"expected a path such as predictions.*.label, got {path!r}"
            )
        self.text = path
        self._steps = path.split(".")

    def find(self, value: Any, who: str, quote: bool = True) -> Any:
        """Returns the value at this path.

        Args:
            value: The JSON value to search.
            who: How errors begin.
            quote: Whether errors may repeat keys of the value. A server that received a secret may
                send it back.

        Raises:
            TeacherError: If there is no value at this path.
        """
        return self._follow(value, 0, who, quote)

    def advice(self) -> str:
        """Returns what to change if the path leads to one entry of a list; empty if it does not."""
        chosen = [number for number, step in enumerate(self._steps) if step.isdecimal()]
        if not chosen:
            return ""
        every = ["*" if number == chosen[-1] else step for number, step in enumerate(self._steps)]
        return (
            f"; {self.text} reads one entry of a list; if the list has an entry for each image, "
            f"write {'.'.join(every)}"
        )

    def _follow(self, value: Any, start: int, who: str, quote: bool) -> Any:
        for index, step in enumerate(self._steps[start:], start):
            if step == "*" and isinstance(value, list):
                return [self._follow(inner, index + 1, who, quote) for inner in value]
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                raise TeacherError(
                    f"{who}: expected the answer at {self.text}, found no {step!r} in "
                    f"{_kind(value, quote)}"
                )
        return value


class _RestService:
    """A `Service` (see `db3kd.teachers.remote.remote_teacher`)."""

    def __init__(
        self,
        url: str,
        name: str,
        template: Template,
        path: AnswerPath,
        classes: int,
        preprocessing: Preprocessing,
        client: HttpClient,
        may_quote: bool,
    ) -> None:
        self.name = name
        self._url = url
        self._template = template
        self._path = path
        self._classes = classes
        self._preprocessing = preprocessing
        self._client = client
        self._may_quote = may_quote
        self._encode = json_encoder()

    async def ask(self, images: Tensor, request_id: str) -> Any:
        # A thread serializes the request, so that the event loop can serve the other requests.
        content = await asyncio.to_thread(self._serialize, images)
        headers = {"Content-Type": "application/json", "Idempotency-Key": request_id}
        max_bytes, who = max_answer_bytes(len(images), self._classes), f"teacher {self.name}"
        sent = self._preprocessing.describe_input(images.shape[1:])
        sent += ", as PNG in base64" if self._template.png else ""
        batch = "one image" if self._template.single else counted(len(images), "image")
        reply = await self._client.send(
            self._url, max_bytes, who, content, headers, f"{batch} of {sent}"
        )
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise unreadable(who, error) from None
        found = self._path.find(value, who, self._may_quote)
        has_all = isinstance(found, list) and len(found) == len(images)
        if not (self._template.single or has_all) and (advice := self._path.advice()):
            raise TeacherError(
                f"{who}: expected a list with the answers to {batch}, got another value{advice}"
            )
        is_batch_of_one = isinstance(found, list) and len(found) == 1  # a class or row of scores
        return [found] if self._template.single and not is_batch_of_one else found

    def _serialize(self, images: Tensor) -> bytes:
        return self._encode(self._template.fill(self._preprocessing(images)))

    def identity(self) -> dict[str, Any]:
        return {"url": self._url, "request": self._template.value}

    def details(self) -> Iterator[tuple[str, str]]:
        yield "server", self.name
        yield "request", json.dumps(self._template.value)
        yield "answer", self._path.text

    async def close(self) -> None:
        await self._client.close()


def _placeholders(value: Any, in_list: bool = False) -> Iterator[tuple[str, bool]]:
    """Yields the kind of each placeholder ("all", "each" or "single"), and whether it is a PNG."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _placeholders(inner, in_list)
    elif isinstance(value, list):
        for inner in value:
            yield from _placeholders(inner, in_list or len(value) == 1)
    elif value in (_ALL, _ALL_PNG):
        yield "all", value == _ALL_PNG
    elif isinstance(value, str):
        single = "each" if in_list else "single"
        yield from [(single, False)] * (value == _ONE)
        yield from [(single, True)] * value.count(_ONE_PNG)


def _fill(value: Any, images: np.ndarray | list[str]) -> Any:
    if isinstance(value, str):
        if value in (_ALL, _ALL_PNG):
            return images
        if value == _ONE:
            return images[0]
        return value.replace(_ONE_PNG, str(images[0])) if _ONE_PNG in value else value
    if isinstance(value, dict):
        return {key: _fill(inner, images) for key, inner in value.items()}
    if isinstance(value, list):
        if len(value) == 1 and any(kind == "each" for kind, _ in _placeholders(value)):
            return [_fill(value[0], images[row : row + 1]) for row in range(len(images))]
        return [_fill(inner, images) for inner in value]
    return value


def _kind(value: Any, quote: bool) -> str:
    if isinstance(value, dict):
        keys = shortened(repr(key[:_SHOWN]) for key in value)
        return f"an object with the keys {keys}" if quote and value else "an object"
    if isinstance(value, list):
        return f"a list of {len(value):,}; write * for every entry of a list"
    return "a value that is neither object nor list"
