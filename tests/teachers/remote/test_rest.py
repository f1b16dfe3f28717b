"""Models behind JSON services of any form."""

import base64
import json
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from served_doubles import Answer, Loopback

from db3kd.data.files.uint8_pixels import to_uint8
from db3kd.teachers import (
    ModelOverrides,
    Preprocessing,
    RequestSettings,
    TeacherError,
    decide_checked,
    rest_teacher,
)
from db3kd.teachers.base import UnknownClassError
from db3kd.teachers.remote import SecretHeader
from db3kd.teachers.remote.rest import AnswerPath, Template

SHAPE = (1, 8, 8)
SAID = ModelOverrides(image_shape=SHAPE, classes=10)
BRISK = RequestSettings(batch=8, in_flight=3, timeout=5.0, max_attempts=3, initial_backoff=0.001)
IN_ORDER = RequestSettings(batch=8, in_flight=1)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def service(truth, images_in, answer_of):
    """A server that finds images in a request, and makes an answer of their classes."""

    def answer(asked):
        images = torch.tensor(images_in(json.loads(asked.body)), dtype=torch.float32)
        return Answer.of(answer_of(truth.decide(images.view(-1, *SHAPE)).tolist()))

    return Loopback(answer)


FORMS = {
    "a list in, a list out": (
        {"instances": "$images"},
        lambda body: body["instances"],
        "predictions",
        lambda classes: {"predictions": classes},
    ),
    "objects in, objects out": (
        {"instances": [{"image": {"pixels": "$image"}}], "top": 1},
        lambda body: [instance["image"]["pixels"] for instance in body["instances"]],
        "predictions.*.class.0",
        lambda classes: {"predictions": [{"class": [value]} for value in classes]},
    ),
    "names": (
        ["$images"],
        lambda body: body[0],
        "*.label",
        lambda classes: [{"label": NAMES[value]} for value in classes],
    ),
    "scores": (
        {"x": "$images"},
        lambda body: body["x"],
        "scores",
        lambda classes: {"scores": np.eye(10)[classes].tolist()},
    ),
    "one image, its class": (
        {"image": "$image"},
        lambda body: [body["image"]],
        "class",
        lambda classes: {"class": classes[0]},
    ),
    "one image, its scores": (
        {"image": "$image"},
        lambda body: [body["image"]],
        "scores",
        lambda classes: {"scores": np.eye(10)[classes[0]].tolist()},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_services_of_any_form_are_supported(truth, images, form):
    request, images_in, path, answer_of = FORMS[form]
    said = ModelOverrides(image_shape=SHAPE, class_names=NAMES)
    with service(truth, images_in, answer_of) as server:
        teacher = rest_teacher(f"{server.url}/predict", request, path, said, requests=BRISK)
        assert decide_checked(teacher, images).equal(truth.decide(images))
        assert len(server.asked) == (20 if form.startswith("one") else 3)
        keys = [asked.headers["Idempotency-Key"] for asked in server.asked]
        assert len(set(keys)) == len(keys)
        assert all(asked.method == "POST" for asked in server.asked)
        teacher.close()


def test_preprocessing_is_applied_before_the_request(truth, images):
    steps = Preprocessing(scale=(0, 255), layout="flat", dtype="uint8")
    seen = []

    def answer(asked):
        seen.extend(json.loads(asked.body)["x"])
        return Answer.of([0] * 8)

    with Loopback(answer) as server:
        teacher = rest_teacher(server.url, {"x": "$images"}, "*", SAID, steps, BRISK)
        teacher.decide(images[:8])
        teacher.close()
    assert seen == (images[:8] * 255).round().flatten(1).int().tolist()


@pytest.mark.parametrize("request_form", [{"x": "$images"}, [{"x": "$image"}], {"x": "$image"}])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8"])
def test_numbers_are_sent_in_the_fewest_digits_that_keep_all_bits(request_form, dtype):
    bodies = []

    def answer(asked):
        bodies.append(asked.body)
        return Answer.of([0] * (1 if request_form == {"x": "$image"} else 8))

    # Values of all magnitudes, and those of 8-bit pixels.
    random = torch.Generator().manual_seed(0)
    tiny = torch.rand(4, *SHAPE, generator=random) ** 40
    pixels = torch.randint(256, (4, *SHAPE), generator=random) / 255
    images = torch.cat([tiny, pixels])
    steps = Preprocessing(dtype=dtype, scale=(0, 255) if dtype == "uint8" else None)
    with Loopback(answer) as server:
        teacher = rest_teacher(server.url, request_form, "*", SAID, steps, IN_ORDER)
        teacher.decide(images)
        teacher.close()
    sent = [number for body in bodies for number in _numbers(json.loads(body))]
    assert np.array(sent, dtype).tobytes() == steps(images).tobytes()
    if dtype == "float32":
        assert sum(map(len, bodies)) < 13 * images.numel()  # as a float64, a value takes 20 bytes


def _numbers(value):
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in _numbers(part)]
    return [value]


PNG_FORMS = {
    "one image": ({"image": "$image_png_base64"}, lambda body: [body["image"]]),
    "a list": ({"images": "$images_png_base64"}, lambda body: body["images"]),
    "a list of objects": (
        {"instances": [{"b64": "$image_png_base64"}], "top": 1},
        lambda body: [instance["b64"] for instance in body["instances"]],
    ),
    "an address": (
        {"url": "data:image/png;base64,$image_png_base64"},
        lambda body: [body["url"].removeprefix("data:image/png;base64,")],
    ),
}


@pytest.mark.parametrize("form", PNG_FORMS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_images_are_sent_as_png_files_with_the_nearest_pixels(form, channels, bounds):
    request, texts_in = PNG_FORMS[form]
    shape = (channels, 8, 9)
    lower, upper = bounds
    # Every pixel value, and the middle between two of them.
    pixels = (torch.arange(8 * 72 * channels) / 2 % 255.5).view(8, *shape)
    images = (lower + (upper - lower) * pixels / 255).clamp(lower, upper)
    seen = []

    def answer(asked):
        texts = texts_in(json.loads(asked.body))
        for text in texts:
            file = Image.open(BytesIO(base64.b64decode(text, validate=True)))
            assert file.format == "PNG" and file.mode == {1: "L", 3: "RGB"}[channels]
            seen.append(np.asarray(file).reshape(8, 9, channels))
        return Answer.of({"y": [int(seen[-1].sum()) % 10] if len(texts) == 1 else [3] * len(texts)})

    said = ModelOverrides(image_shape=shape, classes=10)
    with Loopback(answer) as server:
        given = Preprocessing(bounds=bounds)
        teacher = rest_teacher(server.url, request, "y", said, given, IN_ORDER)
        decisions = teacher.decide(images)
        teacher.close()
    sent = torch.from_numpy(np.stack(seen)).movedim(-1, 1)
    assert sent.equal(to_uint8(images, bounds))
    assert len(server.asked) == (8 if form in ("one image", "an address") else 1)
    if len(server.asked) == 8:
        assert decisions.tolist() == [int(image.long().sum()) % 10 for image in sent]
    plain = rest_teacher(server.url, {"image": "$image"}, "y", said, given)
    assert teacher.fingerprint() != plain.fingerprint()
    assert teacher.bounds == bounds


@pytest.mark.parametrize(
    ("shape", "steps", "words"),
    [
        ((64,), {}, r"image_shape: expected \(1, height, width\) or .* PNG .*, got \(64,\)"),
        ((2, 8, 8), {}, r"image_shape: .* got \(2, 8, 8\)"),
        ((1, 8, 8), {"mean": 0.5}, r"mean: expected no value for PNG .*remove mean from"),
        ((1, 8, 8), {"std": 0.5}, "std: expected no value"),
        ((1, 8, 8), {"scale": (0, 1)}, "scale: expected no value"),
        ((1, 8, 8), {"layout": "flat"}, "layout: expected no value"),
        ((1, 8, 8), {"dtype": "float32"}, "dtype: expected no value"),
    ],
)
def test_what_a_png_file_cannot_hold_is_refused(shape, steps, words):
    said = ModelOverrides(image_shape=shape, classes=10)
    with pytest.raises(ValueError, match=words):
        rest_teacher("http://h/p", {"x": "$image_png_base64"}, "y", said, Preprocessing(**steps))


def test_steps_before_a_png_file_are_applied():
    seen = []

    def answer(asked):
        text = json.loads(asked.body)["x"]
        seen.append(np.asarray(Image.open(BytesIO(base64.b64decode(text)))))
        return Answer.of({"y": 0})

    steps = Preprocessing(resize=(4, 6), channel_order="BGR", scale=(0, 255), layout="NHWC")
    image = torch.tensor([0.0, 0.6, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    said = ModelOverrides(image_shape=(3, 8, 8), classes=10)
    with Loopback(answer) as server:
        teacher = rest_teacher(server.url, {"x": "$image_png_base64"}, "y", said, steps, IN_ORDER)
        teacher.decide(image)
        teacher.close()
    assert seen[0].shape == (4, 6, 3)
    assert (seen[0] == [255, 153, 0]).all()


def test_a_png_file_needs_pillow(monkeypatch):
    for module in [each for each in sys.modules if each.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "PIL", None)
    words = r'a PNG file needs the package pillow: pip install "db3kd\[data\]"'
    with pytest.raises(ModuleNotFoundError, match=words):
        rest_teacher("http://h/p", {"x": "$image_png_base64"}, "y", SAID)


@pytest.mark.parametrize(
    "request_form",
    [
        {},
        {"x": 1},
        {"x": "$images", "y": "$image"},
        {"x": "$image_png"},
        {"x": "$image_png_base64", "y": "$image_png_base64"},
        {"x": "$image_png_base64 $image_png_base64"},
    ],
)
def test_a_request_has_one_placeholder(request_form):
    with pytest.raises(ValueError, match=r"request: expected one placeholder, '\$images' for all"):
        Template(request_form)


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("a.b", {"a": {"b": 3}}, 3),
        ("a.1", {"a": [1, 2]}, 2),
        ("*", [1, 2], [1, 2]),
        ("*.*.x", [[{"x": 1}], [{"x": 2}]], [[1], [2]]),
        ("0", {"0": 5}, 5),
    ],
)
def test_a_path_finds_values_in_objects_and_lists(path, value, found):
    assert AnswerPath(path).find(value, "who") == found


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("a.b", {"a": {}}, "expected the answer at a.b, found no 'b' in an object$"),
        ("a.*.b", {"a": [{"c": 1}]}, r"at a\.\*\.b, found no 'b' in an object with the keys 'c'$"),
        ("a.2", {"a": [1, 2]}, r"found no '2' in a list of 2; write \* for every entry"),
        ("*.a", {"a": 1}, r"found no '\*' in an object"),
        ("a", "text", "found no 'a' in a value that is neither"),
        ("-1", [1], "found no '-1' in a list"),
    ],
)
def test_an_answer_at_another_path_is_a_teacher_error(path, value, words):
    with pytest.raises(TeacherError, match="^who: .*" + words):
        AnswerPath(path).find(value, "who")


def test_keys_are_not_repeated_by_a_server_that_received_a_secret():
    with pytest.raises(TeacherError, match=r"found no 'b' in an object$"):
        AnswerPath("b").find({"the secret": 1}, "who", quote=False)


def test_a_path_to_one_entry_for_many_images_asks_for_every_entry(images):
    body = b'{"y": [{"label": 1}, {"label": 2}]}'
    with Loopback(lambda asked: Answer(200, body)) as server:
        one, every = (
            rest_teacher(server.url, {"x": "$images"}, path, SAID, requests=BRISK)
            for path in ("y.0.label", "y.*.label")
        )
        with pytest.raises(TeacherError, match=r"reads one entry .*, write y\.\*\.label$"):
            one.decide(images[:2])
        assert every.decide(images[:2]).tolist() == [1, 2]
        one.close()
        every.close()


@pytest.mark.parametrize("path", ["", "a..b", ".a", 3])
def test_a_path_with_an_empty_step_is_rejected(path):
    with pytest.raises(ValueError, match="answer: expected a path"):
        AnswerPath(path)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "cannot be read"),
        (b"not JSON", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"y": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"y": NaN}', r"got an answer of shape \[\]"),
        (b'{"y": [NaN, 0]}', "got class nan for image 0"),
        (b'{"y": [99999999999999999999999, 0]}', "got"),
        (b'{"y": [[1e400, NaN], [0, 0]]}', "got an answer of shape"),
        (b'{"y": {"0": 1}}', r"got an answer of shape \[\]"),
        (b'{"z": 1}', "found no 'y' in an object"),
        (b" " * (2 * 2**20), "expected a response of at most"),
    ],
)
def test_a_hostile_answer_is_a_teacher_error(images, body, words):
    with Loopback(lambda asked: Answer(200, body)) as server:
        teacher = rest_teacher(server.url, {"x": "$images"}, "y", SAID, requests=BRISK)
        with pytest.raises(TeacherError, match=words):
            decide_checked(teacher, images[:2])
        teacher.close()


def test_a_key_in_the_address_is_not_shown(images):
    with Loopback(lambda asked: Answer(403)) as server:
        teacher = rest_teacher(f"{server.url}/p?key=hush", "$images", "y", SAID, requests=BRISK)
        with pytest.raises(TeacherError, match="the server answered with status 403") as raised:
            teacher.decide(images[:2])
        assert "hush" not in str(raised.value) + teacher.name + str(list(teacher.details()))
        assert server.asked[0].path == "/p?key=hush"
        teacher.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_secret_is_named_with_its_header(images, monkeypatch, status):
    monkeypatch.setenv("DIGITS_KEY", "hush")
    with Loopback(lambda asked: Answer(status, b"no hush")) as server:
        for secret, words in (
            (None, "no hush; no secret is configured (variable and name in [header])"),
            (
                SecretHeader("DIGITS_KEY", "X-API-Key"),
                "; its words are withheld, because it received a secret; the secret in DIGITS_KEY "
                "was sent in the header X-API-Key (name in [header])",
            ),
        ):
            teacher = rest_teacher(server.url, "$images", "y", SAID, requests=BRISK, secret=secret)
            with pytest.raises(TeacherError) as raised:
                teacher.decide(images[:2])
            teacher.close()
            assert str(raised.value).endswith(words)


@pytest.mark.parametrize("placeholder", ["$images", "$image"])
@pytest.mark.parametrize("status", [400, 422])
def test_a_rejected_request_is_described(images, placeholder, status):
    steps = Preprocessing(scale=(0, 255), layout="NHWC")
    with Loopback(lambda asked: Answer(status, b"bad")) as server:
        teacher = rest_teacher(server.url, {"x": placeholder}, "y", SAID, steps, BRISK)
        with pytest.raises(TeacherError) as raised:
            teacher.decide(images[:2])
        teacher.close()
        sent = json.loads(server.asked[0].body)["x"]
    count = "2 images" if placeholder == "$images" else "one image"
    assert f"status {status}: bad; the request held {count} of shape (8, 8, 1), layout NHWC, " in (
        str(raised.value)
    )
    assert "values in [0, 255]" in str(raised.value)
    assert np.shape(sent) == ((2, 8, 8, 1) if placeholder == "$images" else (8, 8, 1))


def test_an_unknown_class_is_named_unless_the_server_received_a_secret(images, monkeypatch):
    monkeypatch.setenv("DIGITS_KEY", "hush")
    said = ModelOverrides(image_shape=SHAPE, class_names=("circle", "square"))
    with Loopback(lambda asked: Answer.of({"y": ["hush"] * 2})) as server:
        for secret, words in (
            (None, "got the class name 'hush' for image 0"),
            (SecretHeader("DIGITS_KEY"), "got a class name (withheld: the server received a "),
        ):
            teacher = rest_teacher(
                server.url, {"x": "$images"}, "y", said, requests=BRISK, secret=secret
            )
            with pytest.raises(UnknownClassError) as raised:
                teacher.decide(images[:2])
            teacher.close()
            assert words in str(raised.value)
            assert ("hush" in str(raised.value)) is (secret is None)


def test_missing_overrides_are_reported():
    with pytest.raises(
        ValueError, match="does not declare the shape of its images; pass image_shape="
    ):
        rest_teacher("http://h/p", "$images", "y")
    with pytest.raises(ValueError, match="does not declare its number of classes; pass classes="):
        rest_teacher("http://h/p", "$images", "y", ModelOverrides(image_shape=SHAPE))
