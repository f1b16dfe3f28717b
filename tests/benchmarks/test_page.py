"""The page of results: it is what its files make, and it takes whatever files there are."""

import json
import re

import pytest

REASON = "benchmarks are not installed"
page = pytest.importorskip("benchmarks.page.build", reason=REASON)
plots = pytest.importorskip("benchmarks.page.plots", reason=REASON)
formatting = pytest.importorskip("benchmarks.common.formatting", reason=REASON)
timing = pytest.importorskip("benchmarks.ops.timing", reason=REASON)

DASH = formatting.MISSING
MEASURED = {
    "commit": "0000000",
    "processor": "a processor",
    "threads": 1,
    "versions": {"torch": "2.13.0"},
}
COMMITTED = page.build(page.RESULTS)


@pytest.fixture
def results(tmp_path):
    """Writes results by name into an empty folder and returns the page of that folder."""

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


def test_every_plot_and_every_result_beside_the_page_is_on_it():
    links = set(re.findall(r"\]\(([^)]+)\)", COMMITTED.text))
    assert [link for link in links if not (page.RESULTS / link).exists()] == []
    beside = {file.name for kind in ("*.png", "*.json") for file in page.RESULTS.glob(kind)}
    assert beside <= links


def test_every_committed_result_names_its_commit_and_machine():
    for file in page.RESULTS.glob("*.json"):
        line = next(
            line for line in COMMITTED.text.splitlines() if line.startswith(f"*[{file.name}")
        )
        measured = json.loads(file.read_text())["measured"]
        assert measured["commit"] in line and measured["processor"] in line


def test_a_folder_without_results_has_no_sections(results):
    assert "\n## " not in results().text


def test_a_result_of_an_unknown_kind_is_shown_in_tables(results):
    text = results(
        novelty={
            "measured": MEASURED,
            "pairs": 1000,
            "rows": [{"method": "a|b", "distance": 1.23456}, {"method": "b", "found": True}],
            "curves": {"a": {"25": 2.0}},
        }
    ).text
    assert "## novelty\n" in text
    assert "| pairs | 1,000 |" in text and "| curves, a, 25 | 2 |" in text
    assert f"| a\\|b | 1.235 | {DASH} |\n| b | {DASH} | yes |" in text
    assert "*[novelty.json](novelty.json): a processor, 1 thread; torch 2.13.0; commit" in text


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
    none = f"| {DASH} | {DASH} | {DASH} |"
    assert f"| ray_lengths | 64 | 256 | 1 ms | 50.0 % | 3 ms | 3x {none}" in text
    assert f"| ray_lengths | 784 | 256 | 2 s | 50.0 % | {DASH} | {DASH} {none}" in text


def test_the_factor_of_ways_that_took_turns_is_over_these_turns():
    entries = [
        {"group": "g", "stats": {"median": seconds}, "extra_info": {"way": way} | of}
        for way, seconds, of in (("eager", 3.0, {"beside": 0.5}), ("native", 1.0, {"beside": 9.0}))
    ]
    assert [row["times_eager"] for row in timing.rows_of(entries)] == [1.0, 6.0]


def test_seconds_of_a_device_take_the_place_of_those_of_the_host():
    entry = {"group": "g", "stats": {"median": 1.0}, "extra_info": {"seconds": 0.25}}
    assert timing.rows_of([entry])[0]["seconds"] == 0.25


def student_result(images: int, **students: list[dict]) -> dict:
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


def student_row(method: str, accuracy: float, queries: float | None = 160.0) -> dict:
    cost = {"queries_per_sample": queries}
    return {"method": method, "accuracies": [accuracy], "agreements": [0.9]} | cost


def test_students_stand_beside_their_queries_in_each_table(results):
    text = results(
        students_20000=student_result(20_000, half=[student_row("a", 0.5, None)]),
        students_5000=student_result(5000, half=[student_row("a", 0.75), student_row("b", 0.875)]),
    ).text
    assert "|  | digits 5,000 | digits 20,000 |" in text
    assert f"| a | 75.0 (160) | 50.0 |\n| b | 87.5 (160) | {DASH} |" in text
    assert f"| a | 50.0 | 90.0 | {DASH} |" in text and "| a | 75.0 | 90.0 | 160 |" in text
    assert "| SD | 1 | 2.5 | 0.5 | 0.25 |" in text
    assert text.index("### students-5000") < text.index("### students-20000")


def attack(mean: float, **facts) -> dict:
    at = {"50": {"mean": 2 * mean, "median": mean}, "1000": {"mean": mean, "median": mean}}
    return {
        "queries_a_pair": 99.6,
        "seconds": 0.5,
        "share_in_teacher": 0.25,
        "peak_mebibytes": 300.4,
        "mebibytes_before": 280.0,
        "missed": 0,
        "unconfirmed": 0,
        "errors": [],
        "at": at,
    } | facts


def test_peers_show_distances_costs_failures_and_curves(results):
    best = {"budget": 50, "ratio": 2.5, "peer_by_queries": "Rays", "peer_queries": 99.8,
            "queries_over_peer": 0.501, "peer_by_seconds": None, "peer_seconds": None,
            "seconds_over_peer": None}  # fmt: skip
    made = results(
        peers_digits={
            "teacher": "linear",
            "data": "digits",
            "pairs": 7,
            "classes": [3, 8],
            "starts": 3,
            "optimum": {"mean": 1.25},
            "white_box_over_exact": {"mean": 1.002, "most": 1.0625},
            "attacks": {
                "db3kd MBD": attack(1.25),
                "Rays": attack(2.5, missed=2, errors=["ValueError: a|b"]),
            },
            "best_peer": {"db3kd MBD": [best]},
            "curves": {
                "db3kd MBD": {"queries": [10, 50], "seconds": [0.0, 0.25], "mean": [5, 2.5]}
            },
        }
    )
    assert "7 pairs 3→8, digits, teacher linear, 3 starting points per pair." in made.text
    assert "1.0020 times the true optimum (1.0625 at most)." in made.text
    assert "|  | 50 | 1,000 |\n| --- | ---: | ---: |\n| db3kd MBD | 2.500 | 1.250 |" in made.text
    assert "| Rays | 100 | 500 ms | 25.0 % | 300 | 20 |" in made.text
    assert f"| 50 | 2.500 | Rays | 100 | 50.1 % | {DASH} | {DASH} | {DASH} |" in made.text
    assert r"| Rays | 2 | 0 | ValueError: a\|b |" in made.text
    assert "| db3kd MBD | 0 | 0 |" not in made.text
    queries, seconds = made.plots
    assert queries.curves["db3kd MBD"] == [(10, 5.0), (50, 2.5)]
    assert seconds.curves["db3kd MBD"] == [(0.25, 2.5)]


def test_growth_shows_exponents_of_sizes_only_and_the_settings_that_points_share(results):
    def series(varied: str, *values: int) -> dict:
        costs = ("seconds", "own_seconds", "queries", "peak_mib")
        settings = {"targets": None, "shape": [1, 8, 8], "classes": 10}
        return {
            "name": varied,
            "varied": varied,
            "exponents": {cost: {"all": 0.5, "last two": -0.001} for cost in costs},
            "points": [
                settings
                | {varied: value, "seconds": float(value), "teacher_seconds": value / 4}
                | {"queries": 5000, "peak_mib": 300.0 + value, "before_mib": 280.0}
                for value in values
            ],
        }

    made = results(growth={"series": [series("samples", 10, 20), series("threads", 1, 2)]})
    assert "| samples | 0.50 / 0.00 | 0.50 / 0.00 |" in made.text
    assert "| threads | 0.50" not in made.text
    assert "**samples** (classes 10, shape 1x8x8, targets all)" in made.text
    assert "| 10 | 10 s | 25.0 % | 5,000 | 310 | 30 |" in made.text
    assert made.plots[0].curves == {"samples": [(10, 10.0), (20, 20.0)]}


def test_curves_of_a_plot_differ_in_colour_or_in_line():
    few = plots._styles(["a", "b", "c"])
    many = plots._styles([f"{tool} {number}" for tool in "abc" for number in range(4)])

    assert len({style["color"] for style in few}) == 3
    assert len({(style["color"], style["linestyle"]) for style in many}) == 12
    assert len({style["linestyle"] for style in many[:4]}) == 1


def test_a_plot_holds_the_checksum_of_what_it_shows(tmp_path):
    plot = plots.Plot("name", "Title", "x", "y", {"a": [(1.0, 2.0), (10.0, 3.0)]})
    plots.draw(plot, tmp_path)
    image = pytest.importorskip("PIL.Image").open(tmp_path / "name.png")
    assert image.text["Description"] == plot.digest()
    assert plots.Plot("name", "Title", "x", "y", {"a": [(1.0, 2.5)]}).digest() != plot.digest()


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, DASH),
        (float("nan"), DASH),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.000123456, "0.0001235"),
        (1234.5, "1,234"),
        ("a|b", r"a\|b"),
    ],
)
def test_a_number_is_written_for_reading(value, cell):
    assert formatting.number(value) == cell


@pytest.mark.parametrize(
    ("shares", "cell"), [([0.8625], "86.3"), ([0.8835], "88.4"), ([0.8244, 0.8247], "82.5")]
)
def test_halves_of_a_percentage_are_rounded_up(shares, cell):
    assert formatting.mean_percent(shares) == cell


def test_strategies_are_beside_each_other_at_each_budget(results):
    def row(seed, strategy, accuracy, queries):
        return {
            "images": 1000,
            "queries_per_sample": 2,
            "student": "lenet5-half",
            "strategy": strategy,
            "seed": seed,
            "accuracy": accuracy,
            "agreement": accuracy + 0.02,
            "queries": queries,
        }

    text = results(
        **{
            "budgets-x": {
                "measured": MEASURED,
                "steps": 1500,
                "proxies": 2,
                "rows": [
                    row(0, "auto", 0.85, 2000),
                    row(1, "auto", 0.86, 2000),
                    row(0, "white box, patient", 0.9, 0),
                ],
            }
        }
    ).text
    assert "|  | 1,000 images, 2 queries each |" in text
    assert "| auto | 85.5 ± 0.7 / 87.5 ± 0.7 (2,000) |" in text
    assert "| white box, patient | 90.0 / 92.0 |" in text


def test_methods_of_extraction_stand_in_order_of_agreement(results):
    def row(method, images, seed, agreement, steps=1500):
        return {
            "images": images,
            "budget": 1000,
            "method": method,
            "seed": seed,
            "accuracy": agreement - 0.02,
            "agreement": agreement,
            "queries": 1000,
            "student_steps": steps,
            "cpu_seconds": 20.0,
        }

    rows = [
        row("random", 20000, 0, 0.85),
        row("random", 20000, 1, 0.86),
        row("ART CopycatCNN", 20000, 0, 0.9, 1504),
        row("uniform noise", 0, 0, 0.5),
    ]
    result = {"measured": MEASURED, "student": "lenet5-half", "steps": 1500, "rows": rows}
    text = results(**{"extraction-x": result}).text
    with_images, without = text.split("**20,000 images at hand, 1,000 queries**")[1].split(
        "**no images, 1,000 queries**"
    )
    first, second = with_images.strip().splitlines()[2:4]
    assert first == "| ART CopycatCNN | 88.0 | 90.0 | 1,000 | 1,504 | 20 s | 1 |"
    assert second == "| random | 83.5 ± 0.7 | 85.5 ± 0.7 | 1,000 | 1,500 | 20 s | 2 |"
    assert "| uniform noise | 48.0 | 50.0 |" in without


def test_students_over_tables_show_what_auto_gains(results):
    row = {
        "table": "wine",
        "strategy": "sd",
        "agreements": [0.9, 0.92],
        "queries": 40.0,
        "auto_gains": 0.031,
        "splits_auto_wins": 2,
        "splits_auto_loses": 0,
    }
    settings = {"rows": 40, "budget": 2000, "steps": 1000}
    text = results(tables={"measured": MEASURED, "settings": settings, "students": [row]}).text
    assert "| wine | sd | 40 | 91.0 ± 1.4 | +3.1 | 2 | 0 |" in text


def test_zero_shot_rows_show_the_rarest_class_where_it_is_known(results):
    def row(name, **facts):
        return {"name": name, "images": 100, "queries": 100, "accuracies": [0.5]} | {
            "agreements": [0.75],
            **facts,
        }

    whole = {"part": "curve", "student": "half", "training": {"steps": 9, "batch_size": 128}}
    facts = {"reached": 10, "rarest": 0.025, "cpu_seconds": 90.0}
    text = results(
        zero_shot_new=whole | {"rows": [row("plain", **facts), row("real images")]},
        zero_shot_old=whole | {"rows": [row("older")]},
    ).text
    assert "| plain | 100 | 100 | 50.0 | 75.0 | 10 | 2.5 % | 90 s |" in text
    assert f"| real images | 100 | 100 | 50.0 | 75.0 | {DASH} | {DASH} | {DASH} |" in text
    assert "| older | 100 | 100 | 50.0 | 75.0 |\n" in text
