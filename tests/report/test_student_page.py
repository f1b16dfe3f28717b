"""The page of a student, as HTML and as Markdown."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from matplotlib.image import imread
from report_cases import is_drawn
from sklearn.datasets import load_wine
from student_report_cases import (
    HOSTILE,
    confusion_of,
    digits_report,
    hostile_report,
    photos_report,
    wine_report,
)

from db3kd.report import Disagreements, StudentReport, write_student_report
from db3kd.report.student_blocks import HeatMap, Table
from db3kd.report.student_sections import student_sections
from db3kd.report.text import shown_name
from db3kd.report.thumbnails import image_png
from db3kd.tables import Feature, Features

SECTIONS = [
    "Queries by stage",
    "Agreement against queries",
    "Plan",
    "Class balance",
    "Teacher against student",
    "Disagreements",
    "Soft labels",
    "Terms",
    "Settings",
]
SMALLEST = StudentReport(
    title="t", teacher="a", student="b", data="c", strategy="d", agreement=(1, 1)
)


class Reader(HTMLParser):
    """Collects the text, the elements and the images of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts, self.elements, self.images = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        if tag == "img":
            self.images.append(dict(attributes)["src"])

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read(folder, report) -> tuple[Reader, str]:
    """The page and the Markdown of a report."""
    page = write_student_report(folder, report)
    assert page == folder / "report.html"
    return Reader(page.read_text("utf-8")), (folder / "report.md").read_text("utf-8")


def table(report, title: str) -> Table:
    (found,) = [section for section in student_sections(report) if section.title == title]
    return found.blocks[0]


@pytest.mark.parametrize("make", [digits_report, photos_report, wine_report])
def test_both_pages_have_the_same_sections_in_the_same_order(tmp_path, make):
    report = make()
    html = write_student_report(tmp_path, report).read_text("utf-8")
    text = (tmp_path / "report.md").read_text("utf-8")
    expected = [section.title for section in student_sections(report)]
    assert [title for title in SECTIONS if title in expected] == expected
    assert re.findall("<h2>(.*)</h2>", html) == re.findall("^## (.*)$", text, re.M) == expected
    assert make is wine_report or expected == SECTIONS


def test_the_headline_has_the_agreement_with_its_interval(tmp_path):
    report = replace(digits_report(), agreement=(652, 700), confusion=None)
    page, text = read(tmp_path, report)
    for shown in (page.text.replace("\N{NO-BREAK SPACE}", " "), text.replace("*", "")):
        assert "93.1 % (91.0 to 94.8 %) of 700 held-out images" in shown
        assert "(87.3 to 88.6 %) of 10,000 test images" in shown
        assert "200,000" in shown and "50.00" in shown


def test_a_report_of_the_agreement_alone_has_no_section_and_no_figure(tmp_path):
    page, text = read(tmp_path, SMALLEST)
    assert "h2" not in page.elements and "##" not in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.md"]


@pytest.mark.parametrize(
    ("title", "without"),
    [
        ("Queries by stage", {"stages": ()}),
        ("Agreement against queries", {"curve": [(10, 0.5)]}),
        ("Plan", {"choices": ()}),
        ("Class balance", {"class_counts": torch.zeros(10, dtype=torch.int64)}),
        ("Teacher against student", {"confusion": None}),
        ("Disagreements", {"disagreements": None}),
        ("Soft labels", {"soft_examples": None}),
        ("Settings", {"reproduce": {}}),
    ],
)
def test_a_section_without_values_is_left_out(title, without):
    titles = [section.title for section in student_sections(replace(digits_report(), **without))]
    left_out = [title, *(["Terms"] if title == "Queries by stage" else [])]
    assert titles == [each for each in SECTIONS if each not in left_out]


def test_stages_add_up():
    stages = table(digits_report(), "Queries by stage")
    assert stages.head == ["stage", "queried", "why", "queries", "price", "time (h:mm:ss)"]
    assert stages.rows[2][3:] == ["199,000", "49.75", "0:21:03"]
    assert stages.rows[-1] == ["all stages", "", "", "200,000", "50.00", "0:28:05"]
    unpriced = table(replace(digits_report(), price_per_1000=None), "Queries by stage")
    assert "price" not in unpriced.head
    assert unpriced.rows[-1] == ["all stages", "", "", "200,000", "0:28:05"]


def test_each_alternative_has_its_agreement_and_the_chosen_one_is_marked():
    plan = table(digits_report(), "Plan")
    assert plan.rows[:2] == [
        ["learning rate", "0.001", "", "91.7"],
        ["", "0.003", "chosen", "93.1"],
    ]
    assert plan.rows[-1] == ["", "MBD", "", "not measured"]
    assert [plan.rows[number][2] for number in plan.strong_rows] == ["chosen"] * 3


def test_the_bars_of_classes_show_their_counts():
    names = list("abc")
    counts = torch.tensor([30, 10, 0])
    report = replace(SMALLEST, class_names=names, class_counts=counts)
    (section,) = student_sections(report)
    assert "It chose 1 of 3 classes for no image." in section.text
    bars = section.blocks[0].bars
    assert [bar.name for bar in bars] == names
    assert [bar.length for bar in bars] == pytest.approx([1, 1 / 3, 0])
    assert [bar.value for bar in bars] == ["30 (75.0 %)", "10 (25.0 %)", "0 (0.0 %)"]


@pytest.mark.parametrize("classes", [2, 20])
def test_up_to_twenty_classes_have_a_heat_map(tmp_path, classes):
    confusion = confusion_of(classes, 100, 0.8)
    report = replace(SMALLEST, agreement=(int(confusion.trace()), 100), confusion=confusion)
    heat = table(report, "Teacher against student")
    assert isinstance(heat, HeatMap)
    assert heat.rows[-1] is None  # never the teacher's class
    counts = [[cell.count for cell in row] for row in heat.rows[:-1]]
    assert counts == confusion[:-1].tolist()
    strengths = torch.tensor([[cell.strength for cell in row] for row in heat.rows[:-1]])
    assert strengths.min() >= 0 and strengths.max() <= 1
    page, text = read(tmp_path, report)
    assert "never the teacher's class" in page.text
    assert f"| {classes - 1} | \N{EN DASH}" in text


def test_a_perfect_student_has_no_confusion():
    confusion = torch.diag(torch.tensor([3, 4]))
    heat = table(replace(SMALLEST, agreement=(7, 7), confusion=confusion), SECTIONS[4])
    assert [[cell.strength for cell in row] for row in heat.rows] == [[1, 0], [0, 1]]
    many = torch.eye(30, dtype=torch.int64)
    (section,) = student_sections(replace(SMALLEST, agreement=(30, 30), confusion=many))
    assert "no disagreement" in section.text and section.blocks == []


@pytest.mark.parametrize("classes", [21, 1000])
def test_more_classes_have_a_table_of_the_most_frequent_confusions(classes):
    report = photos_report(classes)
    found = table(report, "Teacher against student")
    missed = report.confusion.clone().fill_diagonal_(0)
    counts = missed.flatten().sort(descending=True).values[:20]
    assert [int(row[2]) for row in found.rows] == counts[counts > 0].tolist()
    teacher, student = (report.class_names.index(name) for name in found.rows[0][:2])
    assert missed[teacher, student] == counts[0]
    assert found.rows[0][3] == f"{int(report.confusion[teacher].sum()):,}"


@pytest.mark.parametrize("make", [digits_report, photos_report])
def test_images_are_in_the_page_and_beside_the_markdown(tmp_path, make):
    report = make()
    page, text = read(tmp_path, report)
    assert len(page.images) == 24 + 8
    files = re.findall(r"\]\(([^)]*\.png)\)", text)
    assert files[0] == "agreement.png" and is_drawn(tmp_path / files[0])
    for source, file in zip(page.images, files[1:], strict=True):
        png = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        assert (tmp_path / file).read_bytes() == png
        assert 112 <= max(imread(io.BytesIO(png)).shape[:2]) <= 224


def test_templates_are_compiled_once(tmp_path, monkeypatch):
    write_student_report(tmp_path / "first", SMALLEST)
    monkeypatch.setattr("jinja2.Environment.compile", None)
    write_student_report(tmp_path / "second", SMALLEST)
    first, second = ((tmp_path / name / "report.html").read_text() for name in ("first", "second"))
    assert first == second


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_image_is_enlarged_by_whole_pixels(channels):
    image = torch.randint(256, (channels, 8, 5)) / 255
    picture = imread(io.BytesIO(image_png(image)))
    shown = picture[::14, ::14] if channels == 3 else picture[::14, ::14, None]
    np.testing.assert_allclose(shown, image.movedim(0, -1), atol=1e-6)
    assert (picture.repeat(1, 0)[:14, :14] == picture[0, 0]).all()


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_images_of_other_channels_are_shown_in_grey_and_the_page_says_so(tmp_path, channels):
    images = torch.rand(24, channels, 8, 5)
    report = digits_report()
    shown = report.disagreements._replace(images=images)
    soft = report.soft_examples._replace(images=images[:8])
    page, text = read(tmp_path, replace(report, disagreements=shown, soft_examples=soft))
    note = f"Images have {channels} channels and are shown in grey, as the mean of these."
    assert page.text.count(note) == text.count(note) == 2
    picture = imread(tmp_path / "disagreements" / "01.png")[::14, ::14]
    np.testing.assert_allclose(picture, images[0].mean(0), atol=0.51 / 255)


def test_rows_of_features_are_shown_as_tables(tmp_path):
    report = wine_report()
    features = table(report, "Disagreements")
    assert features.rows[0] == ["teacher's class", "class_0", "class_1", "class_1", "class_1"]
    assert features.rows[2][0] == "alcohol"
    assert features.rows[2][1:] == [f"{value:.4g}" for value in load_wine().data[60:64, 0]]
    assert [row[1] for row in features.rows if row[0] in ("magnesium", "proline")] == ["101", "680"]
    prolines = [row[1:] for row in features.rows if row[0] == "proline"]
    assert prolines == [[f"{value:.0f}" for value in load_wine().data[60:64, -1]]]
    page, text = read(tmp_path, report)
    assert "img" not in page.elements and "![" not in text
    assert "All 4 held-out rows" in page.text
    assert "images" not in page.text


def test_soft_labels_show_the_five_highest_classes():
    report = digits_report()
    section = student_sections(report)[SECTIONS.index("Soft labels")]
    bars = section.blocks[0].cards[0].bars
    top = report.soft_examples.probabilities[0].topk(5)
    assert [bar.name for bar in bars] == [str(place) for place in top.indices.tolist()]
    assert [bar.length for bar in bars] == pytest.approx(top.values.tolist())


def test_strings_are_text_and_nothing_else(tmp_path):
    report = hostile_report()
    page, _ = read(tmp_path, report)
    usual, _ = read(tmp_path, replace(report, **vars_of_strings("x")))
    assert set(page.elements) == set(usual.elements)
    assert page.elements.count("img") == 32 and "script" not in page.elements
    for name in HOSTILE:
        assert shown_name(name) in page.text.replace("\n", " ")


def vars_of_strings(text: str) -> dict:
    return {"title": text, "teacher": text, "student": text, "data": text, "strategy": text}


def test_the_page_needs_nothing_else(tmp_path):
    html = write_student_report(tmp_path, digits_report()).read_text("utf-8")
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)|@import""", html)
    assert all(one.startswith(("data:", "#")) for pair in references for one in pair if one)


def test_equal_reports_give_equal_files_and_replace_those_before(tmp_path):
    write_student_report(tmp_path, digits_report())
    first = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    write_student_report(tmp_path, digits_report())
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == first


def test_large_values_of_features_have_no_exponent():
    features = Features([Feature.continuous("income", 0, 1e6), Feature.integer("steps", 0, 50_000)])
    rows = torch.tensor([[0.0455104, 0.5], [0.001, 0.1]])
    disagreements = Disagreements(rows, torch.tensor([0, 0]), torch.tensor([1, 1]))
    report = replace(
        wine_report(), features=features, disagreements=disagreements, soft_examples=None
    )

    shown = {row[0]: row[1:] for row in table(report, "Disagreements").rows}

    assert shown["income"] == ["45,510", "1000"] and shown["steps"] == ["25,000", "5000"]
