"""Description files, through `load_teacher` and the command line."""

import json
import re

import pytest
import torch
from served_doubles import Answer, Loopback, ModelServer
from teachers_analytic import LinearTeacher
from typer.testing import CliRunner

from db3kd.cli.app import app
from db3kd.data.loading import load_data
from db3kd.labels.label_files import load_labels
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import TeacherError, load_teacher

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def truth() -> LinearTeacher:
    """Near to the digits' mean images: puts most digits where they belong."""
    digits = load_data("digits")
    images = digits.read(range(len(digits))).flatten(1)
    means = torch.stack([images[digits.labels == digit].mean(0) for digit in range(10)])
    return LinearTeacher(means, -means.square().sum(1) / 2, SHAPE)


def describe(path, text, **values):
    path.write_text(text.format(**values), encoding="utf-8")
    return path


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_description_of_a_service_labels_from_the_command_line(tmp_path, truth, monkeypatch):
    names = [f"digit {number}" for number in range(10)]
    (tmp_path / "classes.txt").write_text("\n".join(names))
    paid = 0

    def answer(asked):
        nonlocal paid
        images = torch.tensor(json.loads(asked.body)["instances"]).view(-1, *SHAPE) / 255
        paid += len(images)
        answers = [{"label": names[value]} for value in truth.decide(images).tolist()]
        return Answer.of({"predictions": answers})

    monkeypatch.setenv("DIGITS_KEY", "Bearer hush-hush")
    with Loopback(answer) as server:
        monkeypatch.setenv("DB3KD_ALLOW_SECRET", f"DIGITS_KEY={server.url}")
        path = describe(
            tmp_path / "teacher.toml",
            """
            url = "{url}/predict"
            image_shape = [1, 8, 8]
            labels = "classes.txt"
            [preprocessing]
            scale = [0, 255]
            layout = "NHWC"
            [requests]
            batch = 32
            [header]
            variable = "DIGITS_KEY"
            name = "X-Key"
            [rest]
            request = {{ instances = "$images" }}
            answer = "predictions.*.label"
            """,
            url=server.url,
        )
        options = ("--data", "digits", "--measure", "bd", "--limit", 20, "--queries-per-pair", 20)
        result = invoke("label", "--teacher", path, *options, "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        manifest = read_manifest(tmp_path / "run")
        assert manifest["totals"]["queries"] == paid
        assert {asked.headers["X-Key"] for asked in server.asked} == {"Bearer hush-hush"}
        shown = invoke("info", "--teacher", path).output
        assert "predictions.*.label" in shown and "0 to 255" in shown
    labels = load_labels(tmp_path / "run")
    images = load_data("digits").read(labels.index)
    assert labels.decision.equal(truth.decide(images))
    written = "".join(
        file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file()
    )
    assert "hush" not in written + shown + result.output


def test_info_shows_a_served_teacher_with_its_preprocessing(tmp_path, truth):
    with ModelServer(truth) as server:
        path = describe(
            tmp_path / "teacher.json",
            '{{"url": "{url}", "classes": 10, "preprocessing": {{"mean": 0.5}}, '
            '"requests": {{"queries_per_second": 1000}}}}',
            url=server.model,
        )
        text = invoke("info", "--teacher", path).output
    for words in ("1 x 8 x 8", "bytes, over HTTP", "mean           0.5", "NCHW", "1000 queries"):
        assert words in text, text


def test_an_address_alone_takes_its_classes_from_the_images(tmp_path, truth):
    with ModelServer(truth) as server:
        options = ("--data", "digits", "--measure", "sd", "--limit", 10, "--out", tmp_path / "run")
        result = invoke("label", "--teacher", server.model, *options)
        assert result.exit_code == 0, result.output
        manifest = read_manifest(tmp_path / "run")
        assert manifest["totals"]["queries"] == 10
        assert server.answered == 10


def test_arguments_replace_the_description(tmp_path, truth):
    with ModelServer(truth) as server:
        path = describe(tmp_path / "t.toml", 'url = "{url}"\nclasses = 7', url=server.model)
        teacher = load_teacher(path, classes=10, bounds=(0, 2), max_batch=5)
        assert (teacher.classes, teacher.bounds, teacher.requests.batch) == (10, (0.0, 2.0), 5)
        teacher.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected one of the keys url, file and function"),
        ('url = "http://h/v2/models/m"\nfile = "m.onnx"', "expected one of the keys url"),
        ('url = "http://h"\ncolour = "red"', "expected one of url, .*, got 'colour'"),
        ('url = "http://h"\nlables = "x"', "got 'lables'; did you mean 'labels'"),
        ('url = "http://h"\nclasses = "ten"', "classes: expected an integer, got 'ten'"),
        ('url = "http://h"\nlabels = 3', "labels: expected text or a list, got 3"),
        ('url = "http://h"\nlabels = ["a", 1]', "labels: expected two or more class names, as"),
        (
            'url = "http://h"\nlabels = ["a", " a"]',
            "labels: .* each class name once, got 'a'",
        ),
        ('url = "http://h"\nmax_batch = 3', "max_batch: cannot be used with url"),
        ('file = "m.onnx"\n[header]\nvariable = "X"', "header: cannot be used with file"),
        (
            'url = "http://h"\ninput = "x"\n[rest]\nrequest = "$images"\nanswer = "y"',
            "input: cannot be used with rest",
        ),
        ('url = "http://h"\npreprocessing = 3', r"expected a table \[preprocessing\], got 3"),
        (
            'url = "http://h"\n[rest]\nanswer = "y"',
            ".rest. expected the key 'request', got answer",
        ),
        ('url = "http://h"\n[requests]\nspeed = 3', ".requests. expected .*, got 'speed'"),
        ('url = "http://h"\n[requests]\nbatch = 0', "batch: expected an integer of at least 1"),
        ('url = "http://h"\n[preprocessing]\nlayout = "X"', "layout: expected one of NCHW"),
        ('url = "http://h"\n[header]\nname = "A"', ".header. expected the key 'variable'"),
        ("url = ", "cannot be read as TOML"),
        (
            'url = "http://h"\n[rest]\nrequest = "image"\nanswer = "y"',
            r".rest. request: expected one placeholder, .*, got none",
        ),
        (
            'url = "http://h"\n[rest]\nrequest = "$image"\nanswer = "a..y"',
            ".rest. answer: expected",
        ),
        ('url = "http://h"\n[preprocessing]\nstd = 0', ".preprocessing. std: expected positive"),
        (
            'url = "http://h"\nclass_numbers = [1, 1]',
            "class_numbers: expected two or more different",
        ),
    ],
)
def test_an_invalid_description_is_one_clear_error(tmp_path, text, words):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{words}"):
        load_teacher(path)


def test_an_address_of_another_service_names_the_way_to_describe_it():
    with pytest.raises(ValueError, match=r"/v2/models/MODEL, got .*; .* keys url and \[rest\]"):
        load_teacher("http://h/classify", classes=2)


def test_a_list_of_labels_states_the_number_of_classes(tmp_path, truth):
    with ModelServer(truth) as server:
        names = [f"digit {number}" for number in range(10)]
        path = describe(tmp_path / "t.toml", f'url = "{{url}}"\nlabels = {names}', url=server.model)
        teacher = load_teacher(path)
        assert (teacher.classes, list(teacher.class_names)) == (10, names)
        teacher.close()


@pytest.mark.parametrize(("name", "text"), [("t.json", "{"), ("t.json", "[" * 100_000)])
def test_a_description_that_cannot_be_read_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"t\.json: cannot be read as JSON"):
        load_teacher(tmp_path / name)


def test_a_missing_model_file_is_named(tmp_path):
    (tmp_path / "t.toml").write_text('file = "none.onnx"\nlabels = "namez.txt"')
    with pytest.raises(FileNotFoundError, match=r"t\.toml: labels: there is no file .*namez\.txt"):
        load_teacher(tmp_path / "t.toml")
    (tmp_path / "t.toml").write_text('file = "none.onnx"')
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        load_teacher(tmp_path / "t.toml")


def test_a_server_that_is_not_there_ends_the_command_with_one_line(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text('url = "http://127.0.0.1:1/v2/models/m"\n[requests]\nmax_attempts = 1')
    with pytest.raises(TeacherError, match=r"no connection \(connection refused\); is the"):
        load_teacher(path)
    result = invoke("info", "--teacher", path)
    assert result.exit_code == 1 and "no answer in 1 attempt" in result.output
