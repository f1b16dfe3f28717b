"""The page of results: it is what its files make, and takes whatever files there are."""

import json
import re

import pytest

markdown = pytest.importorskip("benchmarks.markdown", reason="benchmarks are not installed")

from benchmarks import page, plots, timing  # noqa: E402

MEASURED = {
    "commit": "0000000",
    "processor": "a processor",
    "threads": 1,
    "versions": {"torch": "2.13.0"},
}
COMMITTED = page.build(page.RESULTS)


@pytest.fixture
def results(tmp_path):
    """Writes results into a folder of their own, by name, and returns its page."""

    def build(**by_name: dict) -> page.Page:
        for name, result in by_name.items():
            (tmp_path / f"{name.replace('_', '-')}.json").write_text(json.dumps(result))
        return page.build(tmp_path)

    return build


def test_the_committed_page_is_what_the_committed_files_make():
    assert (page.RESULTS / page.PAGE).read_text() == COMMITTED.text, "run python -m benchmarks.page"


@pytest.mark.parametrize("plot", COMMITTED.plots, ids=lambda plot: plot.name)
def test_a_committed_plot_shows_the_committed_numbers(plot):
    image = pytest.importorskip("PIL.Image").open(page.RESULTS / plot.file)
    assert image.text["Description"] == plot.digest(), "run python -m benchmarks.page"


def test_every_plot_beside_the_page_is_on_it():
    shown = {plot.file for plot in COMMITTED.plots}
    assert {file.name for file in page.RESULTS.glob("*.png")} == shown


def test_every_link_of_the_page_leads_to_a_file():
    links = re.findall(r"\]\(([^)]+)\)", COMMITTED.text)
    assert links
    assert [link for link in links if not (page.RESULTS / link).exists()] == []


@pytest.mark.parametrize("kind", page.KINDS)
def test_a_kind_without_a_file_is_left_out(results, kind):
    title, _ = page.KINDS[kind]
    assert f"## {title}\n" not in results().text


def test_the_longest_fitting_beginning_of_a_name_is_its_kind(results):
    run = {"wall": 90.0, "in_journal": 0.9, "share": 0.01, "bytes": 110, "queries": 100}
    made = results(journal_share={"measured": MEASURED, "runs": [run | {"replay": 0.5}]})
    assert "## The journal\n\n### journal-share\n\n| time | in the journal |" in made.text
    assert "| 90 s | 900 ms | 1.0 % | 1.1 | 200 |" in made.text


def test_a_result_of_an_unknown_kind_is_shown_in_tables(results):
    made = results(
        novelty={
            "measured": MEASURED,
            "pairs": 1000,
            "rows": [{"method": "a", "distance": 1.23456}, {"method": "b", "found": True}],
            "curves": {"a": {"25": 2.0, "50": 1.0}, "b": {"25": 3.0}},
            "deep": {"inner": {"rows": [{"x": 1}]}},
        }
    )
    assert "## novelty\n" in made.text
    assert "| pairs |\n| --- |\n| 1,000 |" in made.text
    assert "| method | distance | found |" in made.text
    assert "| a | 1.235 | – |\n| b | – | yes |" in made.text  # noqa: RUF001
    assert "**curves**\n\n|  | 25 | 50 |\n| --- | ---: | ---: |\n| a | 2 | 1 |" in made.text
    assert "**deep, inner, rows**\n\n| x |\n| --- |\n| 1 |" in made.text
    assert "0000000" in made.text


def test_ops_are_compared_with_the_eager_way_of_their_group(results):
    shared = {"op": "ray_lengths", "rows": 256, "place": "CPU, 2 threads", "moved": 8}
    entries = [
        {"group": f"at {size}", "stats": {"median": seconds}, "extra_info": shared | of}
        for size, way, seconds in ((64, "eager", 3e-3), (64, "native", 1e-3), (784, "native", 2.0))
        for of in [{"size": size, "way": way, "of_copy": 0.5}]
    ]
    rows = timing.rows_of(entries)
    assert [row.get("times_eager") for row in rows] == [1.0, pytest.approx(3.0), None]
    text = results(ops={"measured": MEASURED, "rows": rows}).text
    assert "| ray_lengths | 64 | 256 | 1 ms | 50.0 % | 3 ms | 3x | – | – | – |" in text  # noqa: RUF001
    assert "| ray_lengths | 784 | 256 | 2 s | 50.0 % | – | – | – | – | – |" in text  # noqa: RUF001


def test_seconds_of_a_device_take_the_place_of_those_of_the_host():
    entry = {"group": "g", "stats": {"median": 1.0}, "extra_info": {"seconds": 0.25}}
    assert timing.rows_of([entry])[0]["seconds"] == 0.25


def test_students_of_one_run_have_a_table_each_and_share_the_labels_of_all(results):
    def learnt(name: str, accuracy: float, scale: float) -> dict:
        row = {"accuracies": [accuracy], "agreements": [0.9], "queries_per_sample": 160.0}
        return {"rows": [row | {"method": name}], "scales": {"sd": {"scale": scale}}}

    labels = {"queries_per_sample": 1.0, "queries_per_pair": 0.0, "mean_distance": 2.5}
    made = results(
        students_few={
            "images": 1000,
            "steps": 2500,
            "batch_size": 128,
            "labels": {"sd": labels | {"rank_correlation_with_logits": 0.5}},
            "students": {"half": learnt("a", 0.75, 0.25), "fifth": learnt("b", 0.5, 4.0)},
        }
    )
    head = (
        "| method | accuracy % | agreement % | queries per sample |\n| --- | ---: | ---: | ---: |"
    )
    for student, row in (("half", "| a | 75.0 | 90.0 | 160 |"), ("fifth", "| b | 50.0 | 90.0 |")):
        assert f"**{student}**\n\n{head}\n{row}" in made.text
    assert "| scale, half | scale, fifth |" in made.text
    assert "| SD | 1 | 0 | 2.5 | 0.5 | 0.25 | 4 |" in made.text


def test_a_plot_holds_the_checksum_of_what_it_shows(tmp_path):
    plot = plots.Plot("name", "Title", "x", "y", {"a": [(1.0, 2.0), (10.0, 3.0)]})
    plots.draw(plot, tmp_path)
    image = pytest.importorskip("PIL.Image").open(tmp_path / "name.png")
    assert image.text["Description"] == plot.digest()
    assert plots.Plot("name", "Title", "x", "y", {"a": [(1.0, 2.5)]}).digest() != plot.digest()


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, "–"),  # noqa: RUF001
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.000123456, "0.0001235"),
        (1234.5, "1,234"),
        ("a|b", r"a\|b"),
    ],
)
def test_a_number_is_written_for_reading(value, cell):
    assert markdown.number(value) == cell
