"""A model behind a JSON service of any form: what to send and where the answer lies is declared.

A request is JSON in which a placeholder stands for the images:

    {"instances": "$images"}                all images of a request, nested lists of numbers
    {"instances": [{"pixels": "$image"}]}   a list of one entry, which is repeated for each image
    {"pixels": "$image"}                    one image, so one image a request

An answer is found by a path, steps between dots: a key, a number for the place in a list, `*` for
every entry of a list. `predictions.*.label` reads {"predictions": [{"label": 7}, …]}.
"""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from db3kd.teachers.answers import AnswerReader
from db3kd.teachers.base import TeacherError
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote.http import HttpClient, SecretHeader, malformed, most_bytes, split_url
from db3kd.teachers.remote.remote_teacher import Background, RemoteTeacher
from db3kd.teachers.remote.retry import RequestSettings
from db3kd.teachers.signature import ModelOverrides, resolve

_ALL, _ONE = "$images", "$image"


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
    """A teacher behind a JSON service, asked by POST. Nothing is sent before the first question.

    url            where to post
    request        what to post, with a placeholder for the images
    answer         path to the classes, the class names or the scores in what comes back
    said           image shape, class count and names: the service declares nothing
    preprocessing  from db3kd's images to the model's input
    requests        how much at once, how often, how patiently
    secret         a header to send along
    fingerprint    any text that changes with the model; by default its address and the request

    Raises ValueError where something is not known, or the request has no placeholder.
    """
    parts = split_url(url, ("http", "https"))
    name = f"{parts.path} at {parts.scheme}://{parts.netloc}"  # a query may hold a key
    overrides, preprocessing = overrides or ModelOverrides(), preprocessing or Preprocessing()
    template, requests = Template(request), requests or RequestSettings()
    if template.single:
        requests = requests.with_batch(1)
    who = f"teacher {name}"
    if overrides.input or overrides.output:
        raise ValueError("input, output: belong to models that declare them; use request, answer")
    named = dataclasses.replace(overrides, input="request", output=answer)
    contract = resolve(who, (), (), named, preprocessing)
    reader, preprocessing = contract.reader, contract.preprocessing
    client = HttpClient(requests.in_flight, requests.timeout, secret)
    service = _Rest(url, name, template, AnswerPath(answer), reader, preprocessing, client)
    shape = contract.image_shape
    return RemoteTeacher(service, Background(), shape, reader, preprocessing, requests, fingerprint)


class Template:
    """A JSON value with one placeholder for images. single: whether it takes one image alone."""

    def __init__(self, value: Any) -> None:
        self.value = value
        places = list(_places(value))
        if len(places) != 1:
            raise ValueError(
                f"request: expected one placeholder, {_ALL!r} or {_ONE!r}, got {len(places)}"
            )
        self.single = places[0] == "single"

    def fill(self, images: np.ndarray) -> Any:
        """The value for these images, [N, *input_shape]."""
        return _filled(self.value, images)


class AnswerPath:
    """A path into a JSON value, as the module says."""

    def __init__(self, path: str) -> None:
        if not isinstance(path, str) or not all(path.split(".")):
            raise ValueError(f"answer: expected a path such as predictions.*.label, got {path!r}")
        self.text = path
        self._steps = path.split(".")

    def find(self, value: Any, who: str) -> Any:
        """What lies there; TeacherError, beginning with `who`, where nothing does."""
        return _follow(value, self._steps, who)


class _Rest:
    """The service: `db3kd.teachers.remote.remote_teacher.Service`."""

    def __init__(
        self,
        url: str,
        name: str,
        template: Template,
        path: AnswerPath,
        reader: AnswerReader,
        preprocessing: Preprocessing,
        client: HttpClient,
    ) -> None:
        self.name = name
        self._url = url
        self._template = template
        self._path = path
        self._classes = reader.classes
        self._preprocessing = preprocessing
        self._client = client

    async def ask(self, images: Tensor, request: str) -> Any:
        # In a thread, so that what is under way goes on while a large request is written.
        content = await asyncio.to_thread(self._written, images)
        headers = {"Content-Type": "application/json", "Idempotency-Key": request}
        most, who = most_bytes(len(images), self._classes), f"teacher {self.name}"
        reply = await self._client.post(self._url, content, headers, most, who)
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise malformed(who, error) from None
        found = self._path.find(value, who)
        return [found] if self._template.single and not _is_batch_of_one(found) else found

    def _written(self, images: Tensor) -> bytes:
        return json.dumps(self._template.fill(self._preprocessing(images))).encode()

    def identity(self) -> dict[str, Any]:
        return {"url": self._url, "request": self._template.value}

    def details(self) -> Iterator[tuple[str, str]]:
        yield "served", self.name
        yield "request", json.dumps(self._template.value)
        yield "answer", self._path.text

    async def close(self) -> None:
        await self._client.close()


def _places(value: Any, in_list: bool = False) -> Iterator[str]:
    """What kind of placeholders a template has."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _places(inner, in_list)
    elif isinstance(value, list):
        for inner in value:
            yield from _places(inner, in_list or len(value) == 1)
    elif value == _ALL:
        yield "all"
    elif value == _ONE:
        yield "each" if in_list else "single"


def _filled(value: Any, images: np.ndarray) -> Any:
    if isinstance(value, str) and value == _ALL:
        return images.tolist()
    if isinstance(value, str) and value == _ONE:
        return images[0].tolist()
    if isinstance(value, dict):
        return {key: _filled(inner, images) for key, inner in value.items()}
    if isinstance(value, list):
        if len(value) == 1 and "each" in _places(value):
            return [_filled(value[0], image[None]) for image in images]
        return [_filled(inner, images) for inner in value]
    return value


def _follow(value: Any, steps: list[str], who: str) -> Any:
    for place, step in enumerate(steps):
        if step == "*" and isinstance(value, list):
            return [_follow(inner, steps[place + 1 :], who) for inner in value]
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise TeacherError(
                f"{who}: expected the answer at {'.'.join(steps)}, found no {step!r} in "
                f"{_kind(value)}"
            )
    return value


def _is_batch_of_one(found: Any) -> bool:
    """Whether an answer for one image is already a list of one answer: of a class, or of scores."""
    return isinstance(found, list) and len(found) == 1


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list"}.get(type(value), "a value that is neither")
