"""The page of a student in a real browser. Run by `make test-browser`."""

import re
from functools import partial

import pytest
from real_browser import chromium, running_browser
from student_report_cases import digits_report, hostile_report, photos_report, wine_report

from db3kd.report import write_student_report
from db3kd.report.student_sections import student_sections

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs a browser: make test-browser")

WIDTHS = (1200, 400)


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(
    scope="module",
    params=[digits_report, photos_report, partial(photos_report, 20), wine_report, hostile_report],
    ids=["digits", "1,000 classes", "20 classes", "wine", "hostile"],
)
def written(request, tmp_path_factory):
    """A report and its page."""
    report = request.param()
    return report, write_student_report(tmp_path_factory.mktemp("report"), report)


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request, browser, written):
    """The page, opened; it has the lists `complaints` (console, errors) and `requests` (URLs)."""
    page = browser.new_page(color_scheme=request.param)
    page.complaints, page.requests = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(written[1].as_uri())
    yield page
    page.close()


def test_the_page_loads_without_complaints_and_without_other_files(page, written):
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [written[1].as_uri()]
    assert page.locator("script").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_headings_and_numbers_are_visible_in_their_order(page, written, width):
    report, _ = written
    page.set_viewport_size({"width": width, "height": 900})
    headings = page.locator("h2")
    assert headings.all_text_contents() == [each.title for each in student_sections(report)]
    assert page.locator("h1").is_visible()
    assert all(heading.is_visible() for heading in headings.all())
    matches, total = report.agreement
    text = page.locator(".headline").inner_text()
    assert text.startswith(f"{100 * matches / total:.1f}")
    assert f"of {total:,} held-out" in text


def test_every_image_is_decoded(page, written):
    report, _ = written
    sizes = page.eval_on_selector_all(
        "img", "images => images.map(each => [each.complete, each.naturalWidth, each.width])"
    )
    assert len(sizes) == (0 if report.is_tabular else 32)
    assert all(complete and natural >= 112 and width > 50 for complete, natural, width in sizes)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_the_width_of_the_page(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        """width => [...document.querySelectorAll("main *")]
            .filter(each => !each.closest(".scroll") && each.getBoundingClientRect().right > width)
            .map(each => each.outerHTML.slice(0, 100))""",
        width,
    )
    assert outside == []


def test_text_and_drawings_contrast_with_the_page(page):
    colours = page.evaluate(
        """() => {
            const colour = (selector, property) => {
                const found = document.querySelector(selector);
                return found && getComputedStyle(found)[property];
            };
            return {
                page: colour("body", "backgroundColor"),
                text: [colour("body", "color"), colour("dt", "color")],
                plot: colour(".plot text", "fill"),
                bar: colour(".bar", "backgroundColor"),
            };
        }"""
    )
    for colour in filter(None, [*colours["text"], colours["plot"]]):
        assert contrast(colour, colours["page"]) > 4.5
    assert contrast(colours["bar"], colours["page"]) > 3


def test_counts_in_the_heat_map_can_be_read(page):
    cells = page.eval_on_selector_all(
        ".heat td.match, .heat td.miss",
        """cells => cells.map(each => {
            const style = getComputedStyle(each);
            return [style.color, style.backgroundColor];
        })""",
    )
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for text, cell in cells:
        assert contrast(text, over(cell, background)) > 3.5


def channels(colour: str) -> list[float]:
    """The channels of `rgb(1, 2, 3)` or `rgba(1, 2, 3, 0.5)`."""
    return [float(number) for number in re.findall(r"[\d.]+", colour)]


def over(colour: str, background: str) -> str:
    """The colour that a half-transparent one has over another."""
    *top, alpha = [*channels(colour), 1.0][:4]
    mixed = [alpha * a + (1 - alpha) * b for a, b in zip(top, channels(background), strict=False)]
    return f"rgb({', '.join(map(str, mixed))})"


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2, from 1 to 21."""

    def luminance(colour: str) -> float:
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in (channel / 255 for channel in channels(colour)[:3])
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
