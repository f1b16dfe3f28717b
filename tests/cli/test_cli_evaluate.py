"""`db3kd evaluate`: what it asks, what it prints before that, and what it refuses."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import TEACHERS, CountingTeacher, Result, fail, succeed
from image_cases import write_png
from PIL import Image
from served_doubles import Answer, Scripted

from db3kd import ImageSet, LabelSettings, build_model, label, load_data, load_teacher, save_model
from db3kd.pipelines.distillation.reproduction import usage

COUNTING = f"{TEACHERS}:CountingTeacher"


@pytest.fixture
def asked():
    before = CountingTeacher.asked
    return lambda: CountingTeacher.asked - before


def test_a_dry_run_names_split_queries_and_price_and_asks_nothing(asked):
    priced = ("--price-per-1000", 2, "--dry-run")

    out = succeed("evaluate", "--teacher", COUNTING, "--data", "digits", *priced)

    assert "images     359: the test split of digits" in out
    assert f"queries    359, answered by {COUNTING}, price 0.718 at 2.00 per 1,000" in out
    assert "no query was sent" in out and "accuracy" not in out
    assert asked() == 0


def test_a_limit_asks_about_the_images_that_distill_would_draw(asked):
    from db3kd.data.sample_choice import draw_samples

    out = succeed("evaluate", "--teacher", COUNTING, "--data", "digits", "--limit", 50, "--seed", 3)

    images = load_data("digits", "test")
    chosen = images.subset(draw_samples(len(images), 50, 3))
    predicted = CountingTeacher().decide(chosen.read(range(50)))
    correct = int((predicted == chosen.labels).sum())
    assert "images     50 of 359: the test split" in out
    assert f"({correct:,} of 50 images)" in out
    assert asked() == 50 + 50  # the command, and the line above


def test_the_student_beside_its_teacher_costs_nothing(teacher, asked):
    pair = ("evaluate", teacher, "--agree-with", COUNTING, "--data", "digits")

    out = succeed(*pair, "--limit", 20, "--price-per-1000", 1000)

    assert f"queries    20, answered by {COUNTING}, price 20.00" in out
    assert asked() == 20


@pytest.mark.parametrize("agreement", [True, False])
def test_class_numbers_are_assumed_for_accuracy_alone(teacher, tmp_path, caplog, agreement):
    images = load_data("digits", "test").read(range(20)).numpy()
    labels = np.arange(20) % 10
    for number in range(20):
        folder = tmp_path / "photos" / f"figure {labels[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (255 * images[number, 0]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    nameless = build_model("linear", (1, 8, 8), 10)
    own = tmp_path / "own.safetensors"
    save_model(own, nameless, model="linear", image_shape=(1, 8, 8), classes=10)

    given = ("evaluate", own, "--data", tmp_path / "photos")
    out = succeed(*given, *(["--agree-with", COUNTING] if agreement else []))

    assert ("accuracy   not measured, because only one of data and model" in out) is agreement
    assert ("does not name its classes" in caplog.text) is not agreement
    assert "teacher own.safetensors" not in caplog.text
    if not agreement:
        assert f"model {own} does not name" in caplog.text


@pytest.fixture
def wide(tmp_path):
    """Photos of 12x20 in colour, and a model of grey images of 8x10."""
    for number in range(4):
        pixels = np.full((12, 20, 3), 60 * number, np.uint8)
        write_png(tmp_path / "photos" / f"{number}.png", pixels)
    model = tmp_path / "wide.safetensors"
    network = build_model("linear", (1, 8, 10), 3)
    save_model(model, network, model="linear", image_shape=(1, 8, 10), classes=3)
    return tmp_path / "photos", model


def test_an_error_names_the_options_that_read_images_in_the_shape_of_the_teacher(wide):
    photos, model = wide
    compared = ("evaluate", model, "--agree-with", model, "--data", photos)

    both, channels, size = (
        fail(*compared, *given) for given in ((), ("--size", "8,10"), ("--channels", 1))
    )

    assert (
        "got (3, 12, 20) in photos; read the image files with --size 8,10 and --channels 1" in both
    )
    assert "got (3, 8, 10) in photos; read the image files with --channels 1" in channels
    assert "got (1, 12, 20) in photos; read the image files with --size 8,10; --size crops" in size
    assert "100.00%" in succeed(*compared, "--size", "8,10", "--channels", 1)
    with pytest.raises(
        ValueError, match=r"images: .* with size=\(8, 10\) and channels=1; size= crops"
    ):
        label(load_teacher(model), load_data(photos), LabelSettings(measure="sd"))


def test_the_line_that_measures_a_student_trusts_its_teacher_as_the_run_did(monkeypatch):
    arguments = ["/bin/db3kd", "distill", "--teacher", "t.pt", "--trust-code"]
    for given in (arguments, arguments[:-1], ["/bin/pytest", "--trust-code"]):
        monkeypatch.setattr(sys, "argv", given)
        line = usage(Path("runs/mine"), "linear", None)["measure"]
        assert line.endswith(" --trust-code") is (given == arguments)


def test_the_line_that_measures_a_student_reads_data_as_its_run_did(wide):
    photos, model = wide
    images = load_data(photos, size=(8, 10), channels=1).subset([2, 0])

    line = usage(model, "linear", images)["measure"]

    line = line.replace("DATA", str(photos)).replace("TEACHER", str(model))
    assert "agreement  100.00% (4 of 4 images)" in succeed(*line.split()[1:])
    assert "--size" not in usage(model, "linear", load_data(photos))["measure"]
    square = usage(model, "linear", load_data(photos, size=28))["measure"]
    assert "--data DATA --size 28 --agree-with" in square
    rows = load_data("wine")
    clipped = ImageSet.from_table(
        rows.features.decode(rows.read([0])), None, rows.features, clip=True
    )
    assert "--data DATA --clip --agree-with" in usage(model, "linear", clipped)["measure"]
    assert "--data DATA --agree-with" in usage(model, "linear", rows)["measure"]


@pytest.mark.parametrize("size", ["0", "8,", "8x10", "1,024", "8,10,3"])
def test_a_size_that_is_none_is_named(wide, size):
    photos, model = wide
    message = fail("evaluate", model, "--data", photos, "--size", size)
    assert (
        f"--size: expected pixels such as 28, or height and width such as 24,32, got '{size}'"
        in (message)
    )


def test_the_result_is_written_with_classes_and_the_images_that_differ(teacher, tmp_path):
    out = tmp_path / "agreement.json"
    given = ("evaluate", teacher, "--agree-with", COUNTING, "--data", "digits", "--limit", 60)

    printed = succeed(*given, "--seed", 3, "--out", out)

    found, test = json.loads(out.read_text()), load_data("digits", "test")
    network, asked = load_teacher(teacher), CountingTeacher()
    assert found["data"].startswith("digits, split test: 60 of 359 images")
    for measured, expected in (("accuracy", test.labels), ("agreement", None)):
        each = found[measured]
        low, high = each["interval"]
        assert f"{each['matches']} of 60 images), 95 % interval {low:.2%} to {high:.2%}" in printed
        assert low < each["share"] < high and each["total"] == 60
        assert sum(one["total"] for one in each["classes"]) == 60
        assert sum(one["matches"] for one in each["classes"]) == each["matches"]
        assert len(each["differences"]) == 60 - each["matches"] > 0
        for one in each["differences"]:
            row = int(one["image"].removeprefix("row "))
            batch = test.read([row])
            decided = asked.decide(batch).item() if expected is None else expected[row].item()
            names = str(decided), str(network.decide(batch).item())
            assert (str(one["expected"]), str(one["predicted"])) == names
    assert "already exists" in fail(*given, "--out", out)
    assert "expected a name ending in .json" in fail(*given, "--out", tmp_path / "r.txt")


def test_a_network_in_memory_answers_on_this_machine(teacher):
    out = succeed("evaluate", "--model", teacher, "--data", "digits", "--limit", 20, "--dry-run")

    assert f"queries    20, answered by {teacher} on this machine\n" in out


def test_two_teachers_that_are_both_asked_are_both_paid():
    pair = ("evaluate", "--model", COUNTING, "--agree-with", COUNTING, "--data", "digits")

    out = succeed(*pair, "--limit", 20, "--price-per-1000", 1000, "--dry-run")

    assert f"answered by {COUNTING} and by {COUNTING}, price 40.00" in out


def test_images_without_a_test_split_are_all_used(tmp_path, asked):
    np.savez(
        tmp_path / "d.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0, 1, 0, 0])
    )

    out = succeed("evaluate", "--teacher", COUNTING, "--data", tmp_path / "d.npz")

    assert "images     4: all images (there is no test split), of" in out
    assert "75.00%" in out and asked() == 4


@pytest.mark.parametrize("as_file", [False, True])
def test_a_function_may_return_the_names_of_its_classes(as_file, tmp_path):
    np.save(tmp_path / "d.npy", np.random.default_rng(0).random((60, 8, 8), np.float32) * 0.6)
    function, names, run = f"{TEACHERS}:named", "dark,light", tmp_path / "run"
    given = ("--data", tmp_path / "d.npy", "--teacher", function)
    if as_file:
        names = tmp_path / "names.txt"
        names.write_text("dark\nlight\n")

    options = ("--budget", 60, "--steps", 20, "--student", "linear", "--out", run)
    succeed("distill", *given, *options, "--class-names", names)
    measured = succeed("evaluate", run, "--agree-with", function, "--data", tmp_path / "d.npy")

    assert load_teacher(run).class_names == ("dark", "light")
    assert re.search(r"always answering '(dark|light)'", measured)
    message = fail("distill", *given, "--budget", 60, "--classes", 2, "--out", tmp_path / "none")
    assert "got the class name " in message and "pass --class-names" in message


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("dark", "--class-names: expected names separated by commas, such as ant,bee, or a text"),
        ("dark,", "--class-names: expected two or more class names"),
        ("dark,dark", "expected each class name once, got 'dark' again"),
    ],
)
def test_class_names_that_cannot_be_used_are_refused(names, words):
    given = ("--teacher", f"{TEACHERS}:named", "--data", "digits", "--budget", 60, "--dry-run")
    assert words in fail("distill", *given, "--class-names", names)


def test_declared_class_names_come_before_those_of_the_option(tmp_path):
    (tmp_path / "t.toml").write_text(
        f'function = "{TEACHERS}:named"\nlabels = ["dark", "light"]\nimage_shape = [1, 8, 8]\n'
    )
    given = ("--teacher", tmp_path / "t.toml", "--trust-code")
    assert "dark" in succeed("info", *given, "--class-names", "light,dark")
    loaded = load_teacher(
        tmp_path / "t.toml", trust_code=True, assumed_class_names=("light", "dark")
    )
    assert loaded.class_names == ("dark", "light")


def test_a_model_takes_the_number_of_classes_from_the_other_one(teacher, tmp_path):
    np.save(tmp_path / "unlabelled.npy", np.random.default_rng(0).random((20, 8, 8), np.float32))
    data = ("--data", tmp_path / "unlabelled.npy")
    function = f"{TEACHERS}:striped"

    one = succeed("evaluate", teacher, "--agree-with", function, *data)
    other = succeed("evaluate", function, "--agree-with", teacher, *data)

    lines = [each.splitlines()[-1] for each in (one, other)]
    measured, *constant = zip(*(line.split("; ") for line in lines), strict=True)
    assert measured[0] == measured[1] and measured[0].startswith("agreement")
    assert all(each.startswith("always answering ") for each in constant[0])
    assert "pass --classes" in fail("evaluate", function, "--agree-with", function, *data)


def test_the_model_is_an_argument_or_an_option(teacher):
    data = ("--data", "digits", "--limit", 20)

    assert succeed("evaluate", teacher, *data) == succeed("evaluate", "--model", teacher, *data)
    both = fail("evaluate", teacher, "--model", COUNTING, *data)
    assert "--model: expected one model to measure, got" in both
    assert "compare two models with --agree-with" in both
    asked = CountingTeacher.asked
    options = fail("evaluate", "--model", teacher, "--teacher", COUNTING, *data)
    assert f"--model: expected one model to measure, got '{teacher}' and '{COUNTING}'" in options
    assert CountingTeacher.asked == asked
    assert "expected the model to measure" in fail("evaluate", *data)


def test_a_teacher_of_unlabelled_images_is_told_that_classes_are_needed(tmp_path, asked):
    np.savez(tmp_path / "d.npz", np.zeros((4, 8, 8), np.uint8))

    message = fail("evaluate", "--teacher", COUNTING, "--data", tmp_path / "d.npz")

    assert "--data: accuracy needs images with true classes" in message
    assert asked() == 0


@pytest.mark.parametrize("command", ["evaluate", "distill"])
def test_a_shape_with_the_channels_last_is_refused_before_anything_is_printed(command):
    options = {"evaluate": (), "distill": ("--budget", 100, "--dry-run")}[command]
    shape = ("--image-shape", "8,8,1", "--classes", 10, "--data", "digits")

    result = Result(command, "--teacher", f"{TEACHERS}:constant", *shape, *options)

    assert result.code == 1 and not result.out
    assert "expected shape (8, 8, 1)" in result.err
    assert "did you mean (1, 8, 8)? Shapes in db3kd have the channels first" in result.err
    assert "correct --image-shape" in result.err


def test_a_python_file_is_refused_with_the_name_to_use(tmp_path):
    (tmp_path / "my_model.py").write_text("def predict(images): ...")

    message = fail("evaluate", tmp_path / "my_model.py", "--data", "digits")

    assert "--model: expected package.module:object for an object in a Python file" in message


def test_a_folder_of_another_kind_of_run_says_what_it_holds(run, tmp_path):
    labels = "a run of db3kd label (labels)"
    message = fail("evaluate", run, "--data", "digits")
    assert f"expected student.safetensors in {run}, got {labels} without a student" in message
    message = fail("evaluate", COUNTING, "--data", run)
    assert f"--data: {run} is {labels}, expected the images that it was made from" in message
    distilled = ("--teacher", COUNTING, "--data", "digits", "--budget", 300, "--out", run)
    message = fail("distill", *distilled, "--resume")
    assert f"{run}: expected a run of db3kd distill (answers), got {labels}" in message
    assert "version" not in message

    answers = tmp_path / "answers"
    distilled = ("--teacher", f"{TEACHERS}:TiringTeacher", "--data", "digits", "--out", answers)
    fail("distill", *distilled, "--budget", 300, "--device", "cpu")
    message = fail("report", "--labels", answers)
    assert f"expected {labels}, got a run of db3kd distill (answers)" in message
    assert "version" not in message


@pytest.fixture
def service(tmp_path):
    """A description of a service that computes the answer to every fourth request in vain."""

    def script(number, asked, infer):
        answer = infer(asked)
        return Answer(500) if number % 4 == 1 else answer

    with Scripted(CountingTeacher(), script) as server:
        file = tmp_path / "teacher.toml"
        file.write_text(
            f'url = "{server.model}"\nimage_shape = [1, 8, 8]\nclasses = 10\n'
            "[requests]\nbatch = 4\nin_flight = 2\ninitial_backoff = 0.001\nmax_backoff = 0.01\n"
        )
        server.file = file
        yield server


@pytest.mark.parametrize("agrees", [True, False])
def test_queries_that_were_paid_twice_are_printed(service, teacher, agrees):
    models = (teacher, "--agree-with", service.file) if agrees else ("--teacher", service.file)

    priced = ("--limit", 40, "--price-per-1000", 1000)
    out = succeed("evaluate", *models, "--data", "digits", *priced)

    assert "queries    40, answered by" in out and "price 40.00" in out
    assert service.paid > 40
    assert out.splitlines()[-1] == (
        f"paid twice at most {service.paid - 40} queries that were sent but returned no usable "
        f"answer, so the price is at most {service.paid}.00"
    )


def test_info_says_how_many_of_its_queries_were_paid_twice(service):
    out = succeed("info", "--teacher", service.file, "--time", 20)

    assert (
        f"20 queries were sent, plus at most {service.paid - 20} that may have been paid twice"
        in out
    )


@pytest.mark.parametrize("command", ["evaluate", "info"])
def test_a_failure_says_how_many_queries_may_have_been_paid(command):
    name = f"{TEACHERS}:TiringTeacher"
    options = {"evaluate": ("--data", "digits", "--limit", 100), "info": ("--time", 100)}[command]

    result = Result(command, "--teacher", name, *options)

    # TiringTeacher answers one call, and the first call has one image.
    assert result.code == 1
    assert "note: 1 query had an answer, and up to" in result.err
    assert "more may have been paid" in result.err
