"""A student that is no better than a constant answer is called useless."""

import pytest
import torch
from distill_cases import CLASSES, QUICK, images, teacher
from tasters import Taster, wines
from teachers_analytic import CountingTeacher, WrappedTeacher
from torch import nn

import db3kd
from db3kd.answers.answers import NUMBERS, augmentable_images, no_answers
from db3kd.pipelines.student_warnings import (
    absent_classes_warning,
    few_held_out,
    probabilities_warning,
    short_training_warning,
    skewed_answers_warning,
    student_warnings,
)


def answers(training: list[int], held_out: list[int]):
    """Decisions for clean images, of which the last are held out."""
    decisions = torch.tensor([*training, *held_out])
    order = torch.arange(len(decisions))
    known = no_answers(augmentable_images(images(len(order)), order, len(held_out), 0))
    return known.add(order * NUMBERS, decisions)


@pytest.mark.parametrize("matches", range(21))
def test_a_student_must_be_better_than_the_most_frequent_class(matches):
    held_out = torch.tensor([0] * 12 + [1] * 8)
    predicted = torch.where(torch.arange(20) < matches, held_out, 2)

    found = student_warnings(answers([0, 1] * 20, held_out.tolist()), predicted, None)

    # Class 0 has 32 of 60 images, 53.3 %; Wilson's interval of 16 of 20 begins at 58.4 %.
    assert len(found) == (matches <= 15)
    if found:
        assert f"on {matches} of 20 held-out images" in found[0]
        assert "class 0 would agree on 53.3% of the 60 images that were queried" in found[0]
        assert ("has learned nothing useful" in found[0]) is (matches <= 10)
        assert ("which is within this interval" in found[0]) is (matches > 10)
        assert "preprocessing that differs" in found[0] and "wrong bounds" in found[0]


def test_a_class_that_is_frequent_by_chance_is_no_constant_answer():
    held_out = [2] * 9 + [0, 1, 3] * 2
    predicted = torch.tensor([2] * 9 + [9] * 6)

    few_of_class_2 = answers([0] * 40 + [1, 3] * 40 + [2], held_out)
    many_of_class_2 = answers([2] * 40, held_out)

    assert student_warnings(few_of_class_2, predicted, None) == []
    assert "class 2" in student_warnings(many_of_class_2, predicted, None)[0]


def test_images_that_proxies_chose_say_nothing_about_a_constant_answer():
    held_out = [0] * 18 + [1] * 2
    known = answers([0, 1, 2, 3] * 40, held_out)
    predicted = torch.where(torch.arange(20) < 17, torch.tensor(held_out), 9)
    drawn = torch.tensor([0] * 36 + [1] * 4)

    assert student_warnings(known, predicted, None) == []
    (found,) = student_warnings(known, predicted, None, at_random=drawn)

    words = (
        "class 0 would agree on 90.0% of the 40 queried images that no proxy chose, so the student"
    )
    assert f"{words} has learned nothing useful" in found


def test_a_run_measures_a_constant_answer_on_images_that_no_proxy_chose(tmp_path):
    options = {"budget": 900, "settings": QUICK, "out": tmp_path / "run"}
    result = db3kd.distill(teacher(), images(2_000), student=Constant(), **options)

    first = result.plan.rounds[0]
    words = f"of the {result.held_out + first:,} queried images that no proxy chose"
    assert len(result.plan.rounds) > 1 and words in result.warnings[1]
    share = result.constant_answer[1] / result.held_out
    page = result.report.with_suffix(".md").read_text()
    assert f"- **{100 * share:.1f} %** agreement of a constant answer, always class" in page


def test_held_out_pseudo_samples_decide_how_often_a_constant_answer_agrees():
    held_out = [2] * 40 + [0, 1, 3] * 20
    known = answers([0] * 200 + [1, 3] * 50, held_out)
    predicted = torch.where(torch.arange(100) < 44, torch.tensor(held_out), 9)

    (found,) = student_warnings(known, predicted, None, pseudo_samples=True)

    assert "44 of 100 held-out pseudo samples (95 % interval 34.7% to 53.8%)" in found
    assert "class 2 would agree on 40.0% of them, which is within this interval" in found


def test_a_few_held_out_images_show_nothing():
    assert student_warnings(answers([0, 1] * 20, [0] * 9), torch.zeros(9), None) == []


def test_a_teacher_of_one_class_is_named_before_the_student_is_blamed():
    known = answers([3] * 40, [3] * 20)
    augmented = known.add(torch.arange(5) * NUMBERS + 1, torch.zeros(5, dtype=torch.int64))

    (found,) = student_warnings(augmented, torch.full((20,), 3), ["a", "b", "c", "d"])

    assert "The teacher put all 60 images in class 'd'" in found
    assert "preprocessing that differs" in found and "channel order" in found
    (about_rows,) = student_warnings(known, torch.full((20,), 3), None, "row")
    assert "encoding that differs" in about_rows and "channel order" not in about_rows


class Constant(nn.Module):
    """Prefers the same class for every image; its weight changes no decision."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        scores = torch.zeros(len(batch), CLASSES) + 0 * self.weight
        return scores + torch.tensor([0.0, 0.0, 0.0, 1.0])


def test_the_result_and_the_report_warn(tmp_path):
    options = {"budget": 300, "settings": QUICK, "out": tmp_path / "run"}
    result = db3kd.distill(teacher(), images(300), student=Constant(), **options)

    short, warning, few = result.warnings
    assert few == few_held_out(15, tested=False)
    assert short == short_training_warning(12, 6_000)
    assert "has learned nothing useful" in warning and "see warnings" in repr(result)
    assert "**Warning:** The student agrees" in result.report.with_suffix(".md").read_text()
    assert '<p class="warning">' in result.report.read_text()


@pytest.mark.parametrize("strategy", ["augmented", "sd"])
def test_training_images_show_a_useless_student_if_few_images_are_held_out(strategy):
    options = {"strategy": strategy, "budget": 300, "settings": QUICK}
    result = db3kd.distill(teacher(), images(120), student=Constant(), **options)

    _, warning, few = result.warnings
    assert few == few_held_out(6, tested=False)
    assert "of 114 images that it was trained on. Always answering with class" in warning
    assert "has learned nothing useful" in warning


def test_a_student_that_learns_is_not_warned_about(tmp_path):
    training = db3kd.TrainSettings(steps=1_200, learning_rate=0.03, device="cpu")
    result = db3kd.distill(
        teacher(),
        images(2000),
        budget=3000,
        student="linear",
        settings=db3kd.DistillSettings(training=training, proxies=0),
        out=tmp_path / "run",
    )
    assert result.warnings == [] and result.agreement > 0.6
    assert "Warning" not in result.report.with_suffix(".md").read_text()
    assert result.validation == result.held_out + result.plan.held_out_augmented


def test_few_held_out_images_are_named_with_what_measures_better(tmp_path):
    few = db3kd.distill(teacher(), images(), budget=300, settings=QUICK, out=tmp_path / "few")
    labelled = images().with_labels(torch.zeros(120, dtype=torch.int64), None)
    tested = db3kd.distill(
        teacher(), images(), budget=300, settings=QUICK, out=tmp_path / "tested", test=labelled
    )

    assert few_held_out(6, tested=False) in few.warnings
    assert few_held_out(6, tested=True) in tested.warnings
    pages = [each.report.with_suffix(".md").read_text() for each in (few, tested)]
    assert all("rests on only 6 held-out images" in page for page in pages)
    assert ["cost no query" in page for page in pages] == [True, False]
    for page in pages:
        assert "db3kd evaluate RUN" in page and "--agree-with TEACHER" in page
        assert "--held-out" in page
    assert few_held_out(6, tested=False, noun="row").startswith(
        "The agreement rests on only 6 held-out rows"
    )


@pytest.mark.parametrize(
    ("decisions", "classes", "names", "words"),
    [
        ([0, 1, 2, 1], 3, None, None),
        ([0, 1, 1], 4, None, "2 of 4 classes (2, 3) for none of the 3 rows"),
        ([1, 1], 2, ("ant", "bee"), "1 of 2 classes ('ant') for none of the 2 rows"),
        ([0], 1_001, None, "1,000 of 1,001 classes (1, 2, 3, 4, 5, …) for none of the 1 row"),
    ],
)
def test_classes_without_an_image_are_counted(decisions, classes, names, words):
    found = absent_classes_warning(torch.tensor(decisions), classes, names, "row")
    assert found is None if words is None else words in found and "--classes" in found


def test_a_user_without_images_is_not_told_to_add_some_to_pseudo_samples():
    found = absent_classes_warning(torch.tensor([0, 1]), 3, None, pseudo_samples=True)
    assert "otherwise start a run with a larger budget, which makes more pseudo samples" in found


def test_a_number_of_classes_that_is_too_high_is_warned_of(tmp_path):
    wide = teacher()
    wide.classes += 2
    options = {"budget": 300, "settings": QUICK, "out": tmp_path / "run"}
    result = db3kd.distill(wide, images(200), **options)

    words = "The teacher chose 2 of 6 classes (4, 5) for none of the 300 images"
    assert any(each.startswith(words) for each in result.warnings)
    assert words in result.report.with_suffix(".md").read_text()


def test_a_student_that_returns_probabilities_is_warned_of_before_the_first_query(tmp_path, caplog):
    softmax = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Softmax(1))
    options = {"budget": 300, "settings": QUICK, "out": tmp_path / "run"}

    result = db3kd.distill(teacher(), images(), student=softmax, **options)

    (warning,) = (each for each in result.warnings if "probabilities" in each)
    assert "remove the softmax" in warning and warning in caplog.text
    assert "remove the softmax" in result.report.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("last", "warned"),
    [
        (nn.Softmax(1), True),
        (nn.Identity(), False),
        (nn.LogSoftmax(1), False),
        (nn.Sigmoid(), False),
        (nn.ReLU(), False),
    ],
)
def test_only_rows_that_are_probabilities_are_called_so(last, warned):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), last)
    found = probabilities_warning(network, images().read(range(16)))
    assert (found is not None) is warned


def test_fewer_images_than_classes_are_warned_of(caplog):
    result = db3kd.distill(teacher(), images(3), budget=40, settings=QUICK)

    assert any("only 3 images for 4 classes" in each for each in result.warnings)
    assert "only 3 images for 4 classes" in caplog.text
    assert "only 1 held-out image," in caplog.text


def test_a_warning_about_a_table_speaks_of_rows():
    constant = nn.Sequential(nn.Linear(5, 2))
    nn.init.zeros_(constant[0].weight)
    constant[0].bias.data = torch.tensor([0.0, 1e6])

    result = db3kd.distill(
        Taster().teacher(), wines(200), student=constant, budget=300, settings=QUICK
    )

    assert result.agreement < 1
    assert "images" not in "".join(result.warnings)
    assert "held-out rows" in result.warnings[1]


@pytest.mark.parametrize("of_images", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("of_augmented", [0.7, 0.9])
def test_augmented_images_in_one_class_are_warned_of(of_images, of_augmented):
    decisions = torch.ones(20 + 200, dtype=torch.int64)
    decisions[: round(20 * of_images)] = 0
    decisions[20 : 20 + round(200 * of_augmented)] = 0
    order = torch.arange(20)
    known = no_answers(augmentable_images(images(20), order, 0, 0))
    rows = torch.cat([order * NUMBERS, (torch.arange(200) % 20) * NUMBERS + 1 + order.repeat(10)])

    found = skewed_answers_warning(known.add(rows, decisions), ("a", "b"), "image")

    assert (found is not None) == (of_augmented == 0.9 and of_images < 0.45)
    if found is not None:
        share = f"{of_images:.1%} of 20 queried images"
        assert f"90.0% of 200 augmented images in class 'a', but {share}" in found


def test_augmented_images_in_one_class_are_warned_of_before_the_budget_is_spent(caplog):
    class Flat(WrappedTeacher):
        """Puts every mixture, which has values that no image has, in class 3."""

        def decide(self, images):
            flat = images.flatten(1)
            mixed = ((flat > 0) & (flat < 1)).any(1)
            return torch.where(mixed, 3, flat.sum(1).long() % 3)

    asked = CountingTeacher(Flat(teacher()))
    pixels = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(0)).round()
    warned_at = []
    caplog.handler.addFilter(
        lambda record: (
            warned_at.append(asked.total) or True
            if "augmented images in class 3" in record.getMessage()
            else True
        )
    )

    result = db3kd.distill(asked, pixels, budget=900, student="linear", settings=QUICK)

    assert len(warned_at) == 1 and warned_at[0] < 450
    assert sum("augmented images in class 3, but 0.0% of 60" in each for each in result.warnings)
