"""The page of results: it is what its files make, and takes whatever files there are."""

import json
import re

import pytest

markdown = pytest.importorskip("benchmarks.common.formatting", reason="no benchmarks")

from matplotlib.axes import Axes  # noqa: E402

from benchmarks.ops import timing  # noqa: E402
from benchmarks.page import build as page  # noqa: E402
from benchmarks.page import plots  # noqa: E402

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
    assert f"## {page.KINDS[kind].title}\n" not in results().text


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


def taught(images: int, **students: list[dict]) -> dict:
    """A result of students."""
    labels = {"queries_per_sample": 1.0, "mean_distance": 2.5, "rank_correlation_with_logits": 0.5}
    return {
        "data": "digits-train",
        "images": images,
        "targets": 3,
        "training": {"steps": 2500, "batch_size": 128},
        "labels": {"SD": labels},
        "scales": {"SD": {"scale": 0.25}},
        "students": students,
    }


def learnt(method: str, accuracy: float, queries: float | None = 160.0) -> dict:
    """A row of a student."""
    cost = {"queries_per_sample": queries}
    return {"method": method, "accuracies": [accuracy], "agreements": [0.9]} | cost


def test_students_of_one_run_have_a_table_each_and_share_the_labels_of_all(results):
    made = results(students_few=taught(1000, half=[learnt("a", 0.75)], fifth=[learnt("b", 0.5)]))
    head = (
        "| method | accuracy % | agreement % | queries per sample |\n| --- | ---: | ---: | ---: |"
    )
    for student, row in (("half", "| a | 75.0 | 90.0 | 160 |"), ("fifth", "| b | 50.0 | 90.0 |")):
        assert f"**{student}**\n\n{head}\n{row}" in made.text
    assert "2,500 steps of 128 for each student; 3 classes searched" in made.text
    assert "| SD | 1 | 2.5 | 0.5 | 0.25 |" in made.text
    assert "in brackets" not in made.text


def test_students_of_several_runs_stand_beside_each_other_by_number_of_images(results):
    made = results(
        students_20000=taught(20_000, half=[learnt("a", 0.5, None)], fifth=[learnt("a", 0.25)]),
        students_5000=taught(5000, half=[learnt("a", 0.75, 1.0), learnt("b", 0.875, 2985.0)]),
    )

    first, *_ = made.text.split("### ")
    table = "| images | digits 5,000 | digits 20,000 |\n| --- | ---: | ---: |\n"
    rows = "| a | 75.0 (1) | 50.0 |\n| b | 87.5 (2,985) | – |"  # noqa: RUF001
    assert f"in brackets the queries a sample.\n\n{table}{rows}\n\n**fifth**" in first
    assert "| images | digits 20,000 |\n| --- | ---: |\n| a | 25.0 (160) |" in first
    assert made.text.index("### students-5000") < made.text.index("### students-20000")


def attack(*, at: dict[str, tuple[float, float]], **facts) -> dict:
    """What a result of peers says of one attack; at: mean and median of the ratio by budget."""
    said = {
        "queries_a_pair": 99.6,
        "seconds": 0.5,
        "share_in_teacher": 0.25,
        "peak_mebibytes": 300.4,
        "mebibytes_before": 280.0,
        "missed": 0,
        "unconfirmed": 0,
        "errors": [],
        "at": {budget: {"mean": mean, "median": median} for budget, (mean, median) in at.items()},
    }
    return said | facts


def some_peers() -> dict:
    near = {"peer_by_queries": "Rays", "our_queries": 50.0, "peer_queries": 99.8,
            "queries_over_peer": 0.501, "peer_by_seconds": "Rays", "our_seconds": 0.2,
            "peer_seconds": 0.4, "seconds_over_peer": 0.5}  # fmt: skip
    return {
        "teacher": "linear",
        "data": "digits",
        "pairs": 7,
        "classes": None,
        "starts": 3,
        "optimum": {"mean": 1.25, "median": 1.0, "least": 0.5, "most": 2.0},
        "attacks": {
            "db3kd MBD": attack(at={"50": (2.5, 2.0), "1000": (1.25, 1.125)}),
            "Rays": attack(at={"50": (4.0, 3.0), "1000": (2.5, 2.0)}),
        },
        "best_peer": {
            "db3kd MBD": [
                {"budget": 50, "ratio": 2.5} | near,
                {"budget": 1000, "ratio": 1.25} | {key: None for key in near},
            ],
        },
        "curves": {
            "db3kd MBD": {"queries": [10, 50, 1000], "seconds": [0.0, 0.25, 0.5],
                          "mean": [5.0, 2.5, 1.25], "median": [5.0, 2.0, 1.125]},
        },
    }  # fmt: skip


def test_peers_are_compared_at_each_budget_and_at_equal_distance(results):
    text = results(peers_digits=some_peers()).text
    assert "7 pairs of any classes, digits, teacher linear, 3 starts a pair." in text
    assert "White-box optimum: mean L2 1.250.\n" in text
    assert (
        "the mean.\n\n|  | 50 | 1,000 |\n| --- | ---: | ---: |\n| db3kd MBD | 2.500 | 1.250 |"
        in text
    )
    assert (
        "the median.\n\n|  | 50 | 1,000 |\n| --- | ---: | ---: |\n| db3kd MBD | 2.000 | 1.125 |"
        in text
    )
    assert "| Rays | 100 | 500 ms | 25.0 % | 300 | 20 |" in text
    assert "| 50 | 2.500 | Rays | 100 | 50.1 % | Rays | 400 ms | 50.0 % |" in text
    assert "| 1,000 | 1.250 | – | – | – | – | – | – |" in text  # noqa: RUF001
    assert "errors" not in text
    assert "surrogate" not in text


def test_what_surrogates_learnt_from_is_said_beside_the_pairs(results):
    learnt = {"surrogate_images": 2000, "surrogate_queries": 10, "surrogate_steps": 50}
    text = results(peers=some_peers() | {"surrogates": learnt}).text
    assert "10 decisions for each of 2,000 other images: 20,000 queries" in text


def test_peers_say_how_far_the_white_box_attack_is_from_the_truth(results):
    over = {"mean": 1.002, "median": 1.001, "least": 1.0, "most": 1.0625}
    text = results(peers=some_peers() | {"classes": [3, 8], "white_box_over_exact": over}).text
    assert "7 pairs 3→8, digits" in text
    assert "mean L2 1.250, 1.0020 times the true optimum (1.0625 at most)." in text


def test_what_peers_missed_and_the_errors_that_ended_them_are_on_the_page(results):
    broken = attack(at={"50": (9.0, 9.0), "1000": (9.0, 9.0)}, missed=2, errors=["ValueError: a|b"])
    made = some_peers()
    made["attacks"]["Rays"] = broken
    text = results(peers=made).text
    assert r"| Rays | 2 | 0 | ValueError: a\|b |" in text
    assert "| db3kd MBD | 0 | 0 |" not in text


def test_peers_without_a_search_of_ours_have_no_best_peer(results):
    made = some_peers()
    del made["best_peer"]
    assert "peer by queries" not in results(peers=made).text


def test_curves_of_peers_begin_where_they_cost_something(results):
    queries, seconds = results(peers_x=some_peers()).plots
    assert (queries.name, seconds.name) == ("peers-x-queries", "peers-x-seconds")
    assert queries.curves["db3kd MBD"] == [(10, 5.0), (50, 2.5), (1000, 1.25)]
    assert seconds.curves["db3kd MBD"] == [(0.25, 2.5), (0.5, 1.25)]
    assert all(plot.log and plot.level == 1 for plot in (queries, seconds))


def series(name: str, varied: str, *values: int) -> dict:
    """Of a result of growth: time and memory are the value's."""
    settings = {"samples": 100, "classes": 10, "shape": [1, 8, 8], "targets": None,
                "candidate_pool": 2000, "rows": 64, "threads": 1,
                "queries_per_pair": 20}  # fmt: skip
    exponent = {"all": 0.5, "last two": -0.001}
    return {
        "name": name,
        "varied": varied,
        "exponents": dict.fromkeys(("seconds", "own_seconds", "queries", "peak_mib"), exponent),
        "points": [
            settings
            | {"labelled": value, varied: value, "seconds": float(value), "queries": 5000}
            | {"teacher_seconds": value / 4, "peak_mib": 300.0 + value, "before_mib": 280.0}
            for value in values
        ],
    }


def test_growth_shows_exponents_of_sizes_alone_and_the_points_of_all(results):
    made = results(
        growth={"series": [series("samples", "samples", 10, 2000), series("rows", "rows", 16)]}
    )
    assert "| samples | 0.50 / 0.00 | 0.50 / 0.00 | 0.50 / 0.00 | 0.50 / 0.00 |" in made.text
    assert "| rows | 0.50" not in made.text
    assert "| 10 | 10 s | 25.0 % | 5,000 | 310 | 30 |" in made.text
    assert "| 16 | 16 s | 25.0 % | 5,000 | 316 | 36 |" in made.text


def test_growth_names_the_settings_that_the_points_of_a_series_share(results):
    text = results(growth={"series": [series("samples", "samples", 10, 20)]}).text
    shared = (
        "classes 10, shape 1x8x8, targets all, candidate pool 2,000, rows a batch 64, threads 1"
    )
    assert f"**samples** ({shared}, queries a pair 20)" in text


def test_growth_draws_time_and_memory_of_all_that_has_an_exponent(results):
    kinds = [series("samples", "samples", 10, 20), series("pixels", "pixels", 64)]
    made = results(growth={"series": [*kinds, series("threads", "threads", 1, 2)]})
    seconds, memory = made.plots
    assert seconds.curves == {"samples": [(10, 10.0), (20, 20.0)], "pixels": [(64, 64.0)]}
    assert memory.curves["samples"] == [(10, 310.0), (20, 320.0)]
    assert seconds.x == memory.x == "samples, pixels"


def test_growth_of_rows_and_threads_alone_has_no_exponents(results):
    made = results(growth={"series": [series("rows", "rows", 16, 64)]})
    assert "value^exponent" not in made.text
    assert made.plots == ()


def test_targets_show_what_labels_and_their_students_are_worth(results):
    labels = [
        {"targets": targets, "queries_per_sample": queries, "rank_correlation": rank,
         "runner_up_share": 0.5, "covered": covered, "scale": 0.25}
        for targets, queries, rank, covered in ((0, 1.0, 0.5, 0.0), (99, 4000.5, 0.75, 1.0))
    ]  # fmt: skip
    rows = [
        {"method": method, "accuracies": accuracies, "agreements": [0.5, 0.5],
         "queries_per_sample": queries}
        for method, accuracies, queries in (
            ("decisions", [0.5, 0.75], 1.0), ("sample distances", [0.75, 0.875], 1.0),
            ("99 targets", [1.0, 1.0], 4000.5), ("logits", [0.9, 0.9], None),
        )
    ]  # fmt: skip
    made = results(
        targets={"classes": 100, "student": "lenet5-half", "images": 1000, "steps": 2500,
                 "measure": "mbd", "queries_per_pair": 100, "labels": labels, "rows": rows}
    )  # fmt: skip
    assert "1,000 images of 100 classes; MBD, 100 queries a pair; lenet5-half, 2,500" in made.text
    assert "| none, sample distances | 1 | 0.5 | 50.0 % | – | 0.25 |" in made.text  # noqa: RUF001
    assert "| 99 | 4,000 | 0.75 | 50.0 % | 100.0 % | 0.25 |" in made.text
    assert "| 99 targets | 100.0 ± 0.0 | 50.0 ± 0.0 | 4,000 |" in made.text
    rank, students = made.plots
    assert rank.curves == {"labels": [(1.0, 0.5), (4000.5, 0.75)]}
    assert students.curves["labels"] == [(1.0, 81.25), (4000.5, 100.0)]
    assert students.curves["decisions alone"] == [(1.0, 62.5)]
    assert students.level == pytest.approx(90)


@pytest.mark.parametrize("log", [False, True])
def test_ten_curves_of_many_points_can_be_told_apart(tmp_path, monkeypatch, log):
    drawn, plot = [], Axes.plot

    def noted(axes: Axes, *points: object, **style: object) -> list:
        drawn.append(style)
        return plot(axes, *points, **style)

    monkeypatch.setattr(Axes, "plot", noted)
    points = [(float(x), 1 / x) for x in range(1, 41)]
    curves = {f"curve {number}": points for number in range(10)}
    plots.draw(plots.Plot("name", "Title", "x", "y", curves, log), tmp_path)
    looks = {(style["color"], style["marker"], style["linestyle"]) for style in drawn}
    assert len(looks) == 10
    assert {style["markevery"] for style in drawn} == {5}


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
