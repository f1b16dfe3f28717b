"""Strategies at the same budget: exact queries, equally long training, resuming, the table."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distill_cases import CHOOSING, QUICK, SHAPE, images, teacher, weights
from teachers_analytic import CountingTeacher, RaisingTeacher, RareTeacher
from torch import nn

import db3kd
from db3kd.data.image_set import ImageSet
from db3kd.pipelines import Comparison
from db3kd.pipelines.comparison.best_strategy import BestStrategy
from db3kd.pipelines.comparison.prepared import prepare_comparison
from db3kd.pipelines.comparison.report import ComparisonSummary, write_comparison
from db3kd.planning import COMPARED, STRATEGIES
from db3kd.report import ComparedStudent, ComparisonRow, comparison_table, wilson_interval
from db3kd.report.comparison import UNSPENT_MARK
from db3kd.report.text import markdown_text
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import TeacherError, load_teacher
from db3kd.teachers.base import SingleClassError
from db3kd.training.callbacks import TrainingCallback, TrainingState

FEW = ("auto", "decisions", "bd")
MEASURED = 60


def measured(labelled: bool = True) -> ImageSet:
    found = images(MEASURED)
    labels = teacher().decide(found.read(range(MEASURED)))
    return found.with_labels(labels, None) if labelled else found


def run(asked: Any = None, **options: Any) -> Comparison:
    given: dict[str, Any] = {
        "budget": 400,
        "strategies": FEW,
        "student": "linear",
        "settings": QUICK,
        "seeds": 2,
    }
    return db3kd.compare(asked or teacher(), images(), **(given | options))


def test_the_queries_of_each_row_are_those_that_the_teacher_saw(tmp_path):
    counting = CountingTeacher(teacher())
    before, spent = 0, {}

    def finished(strategy: str, student: Any) -> None:
        nonlocal before
        spent[strategy, student.seed] = counting.total - before - (MEASURED if not spent else 0)
        before = counting.total

    result = run(
        counting,
        strategies=STRATEGIES,
        seeds=1,
        test=measured(),
        out=tmp_path / "c",
        on_student=finished,
    )

    assert [row.strategy for row in result.rows] == list(STRATEGIES)
    for row in result.rows:
        for student in row.students:
            folder = tmp_path / "c" / f"{row.strategy}-{student.seed}"
            assert student.queries == spent[row.strategy, student.seed] <= 400
            assert student.queries == read_manifest(folder)["totals"]["queries"]
            assert load_teacher(folder / "student.safetensors").classes == teacher().classes
    assert result.test_queries == MEASURED
    assert result.queries == counting.total == sum(spent.values()) + MEASURED


def test_each_row_is_what_distill_gives(tmp_path):
    result = run(test=measured(), out=tmp_path / "c")

    for row in result.rows:
        for student in row.students:
            training = replace(QUICK.training, seed=student.seed)
            alone = db3kd.distill(
                teacher(),
                images(),
                budget=400,
                student="linear",
                strategy=row.strategy,
                settings=replace(QUICK, training=training),
                test=measured(),
            )
            kept = load_teacher(
                tmp_path / "c" / f"{row.strategy}-{student.seed}/student.safetensors"
            )
            assert weights(kept.module).equal(weights(alone.student))
            assert student.queries == alone.queries
            assert student.accuracy == alone.accuracy == student.test_agreement
            assert student.held_out == (alone.matches, alone.held_out)


class Lengths(TrainingCallback):
    """Notes how many steps each training has."""

    def __init__(self, found: dict[str, int], name: str) -> None:
        self.found, self.name = found, name

    def on_report(self, state: TrainingState) -> None:
        self.found[self.name] = state.steps


def test_all_students_train_equally_long():
    found: dict[str, int] = {}
    settings = replace(QUICK, training=replace(QUICK.training, steps=None), time_limit=1e-3)

    result = run(
        settings=settings,
        seeds=1,
        strategies=("auto", "augmented", "decisions", "sd", "zero-shot"),
        callbacks=lambda strategy, seed: [Lengths(found, f"{strategy}-{seed}")],
    )

    assert len(found) == 5
    assert set(found.values()) == {result.steps} == {50}
    with pytest.raises(ValueError, match=r"settings\.patience: expected None"):
        run(settings=replace(QUICK, patience=3))


def test_the_length_follows_from_the_budget_and_not_from_the_answers_of_a_strategy(monkeypatch):
    seen = []
    original = db3kd.pipelines.comparison.compared_students.run_distillation

    def watched(prepared: Any, **options: Any) -> Any:
        seen.append(prepared.settings.training.steps)
        return original(replace(prepared, settings=QUICK), **options)

    monkeypatch.setattr("db3kd.pipelines.comparison.compared_students.run_distillation", watched)
    unset = replace(QUICK, training=replace(QUICK.training, steps=None, batch_size=1))

    run(settings=unset, seeds=1, budget=1_500)

    assert set(seen) == {6 * 1_500} and len(seen) == 3


@pytest.fixture(scope="module")
def whole() -> Comparison:
    return run(CountingTeacher(teacher(max_batch=16)), seeds=1, test=measured())


@pytest.mark.parametrize("queries", [10, 40, 130, 500, 900])
def test_a_teacher_that_fails_costs_nothing_twice(queries, whole, tmp_path):
    failing = RaisingTeacher(teacher(max_batch=16), queries)
    with pytest.raises(TeacherError):
        run(failing, seeds=1, test=measured(), out=tmp_path / "c")
    spent = queries - failing.left
    assert (tmp_path / "c").exists() == bool(spent), "without an answer, nothing is left"
    rest = CountingTeacher(teacher(max_batch=16))

    result = run(rest, seeds=1, test=measured(), out=tmp_path / "c", resume=True)

    assert spent + rest.total == result.queries == whole.queries
    for row, other in zip(result.rows, whole.rows, strict=True):
        same = [
            replace(each, seconds=0) == replace(its, seconds=0)
            for each, its in zip(row.students, other.students, strict=True)
        ]
        assert all(same)


def test_a_finished_comparison_asks_nothing_and_takes_further_strategies_and_seeds(tmp_path):
    out = tmp_path / "c"
    first = run(out=out, test=measured(), strategies=("auto", "decisions"), seeds=1)
    silent = RaisingTeacher(teacher(), 0)

    again = run(silent, out=out, test=measured(), strategies=("auto",), seeds=1, resume=True)
    more = CountingTeacher(teacher())
    grown = run(more, out=out, test=measured(), strategies=("auto", "sd"), seeds=2, resume=True)

    assert again.rows == first.rows[:1]
    assert grown.rows[0].students[0] == first.rows[0].students[0]
    assert more.total == 400 + 2 * 120
    assert json.loads((out / "compare.json").read_text())["queries"] == grown.queries


def test_a_strategy_without_images_may_be_added_to_a_comparison(tmp_path):
    given = {"out": tmp_path / "c", "budget": 120, "seeds": 1}
    first = run(strategies=("decisions",), **given)

    both = run(strategies=("decisions", "zero-shot"), resume=True, **given)

    assert both.rows[0] == first.rows[0] and both.rows[1].strategy == "zero-shot"
    again = run(RaisingTeacher(teacher(), 0), strategies=("decisions",), resume=True, **given)
    assert again.rows == first.rows
    by_adam = replace(QUICK, training=replace(QUICK.training, optimizer="adam"))
    with pytest.raises(ValueError, match=r"without_images\.optimizer: was \"sgd\", is \"adam\""):
        run(strategies=("zero-shot",), resume=True, settings=by_adam, **given)


def test_another_comparison_is_not_resumed_and_the_difference_is_named(tmp_path):
    out = tmp_path / "c"
    run(out=out, test=measured(), strategies=("decisions",), seeds=1)
    for options, words in (
        ({"budget": 500}, r"settings\.budget: was 400, is 500"),
        ({"student": "mlp-quarter"}, r"settings\.student: was"),
        ({"settings": replace(QUICK, proxies=3)}, r"settings\.distillation\.proxies: was 2"),
        ({"test": None}, r"settings\.test: was .*, is null"),
    ):
        with pytest.raises(ValueError, match=words):
            run(**({"out": out, "test": measured(), "resume": True} | options))
    with pytest.raises(FileExistsError, match="already holds a run"):
        run(out=out)


def test_damaged_decisions_of_test_images_are_refused(tmp_path):
    out = tmp_path / "c"
    run(out=out, test=measured(), strategies=("decisions",), seeds=1)
    (shard,) = out.glob("test-decisions-*.parquet")
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")

    with pytest.raises(ValueError, match="test-decisions"):
        run(out=out, test=measured(), strategies=("decisions",), seeds=1, resume=True)


def test_a_strategy_that_cannot_be_used_says_why_and_the_others_run(tmp_path):
    result = run(budget=60, strategies=("mbd", "auto"), seeds=1, out=tmp_path / "c")

    refused, used = result.rows
    assert refused.students == () and "one decision for each of 120 images" in refused.refused
    assert used.queries == 60
    assert "| mbd: not used |" in result.table
    assert f"Not used: mbd. {refused.refused}." in result.notes
    with pytest.raises(ValueError, match="strategies: none of them can be used"):
        run(budget=60, strategies=("mbd", "bd"))


def test_without_images_the_students_are_zero_shot():
    result = db3kd.compare(
        teacher(), budget=300, strategies=("zero-shot", "decisions"), student="linear",
        settings=QUICK, seeds=1,
    )  # fmt: skip

    assert result.rows[0].queries == 300
    assert "needs images" in (result.rows[1].refused or "")
    assert any("pseudo samples" in note for note in result.notes)


def test_unlabelled_test_images_measure_agreement_alone():
    result = run(strategies=("decisions",), seeds=1, test=measured(labelled=False))

    (student,) = result.rows[0].students
    assert student.accuracy is None and student.test_agreement is not None
    assert "accuracy" not in result.table and "test agreement" in result.table


def test_the_best_strategy_of_an_easy_teacher_agrees_with_it():
    result = run(budget=3_000, settings=CHOOSING, strategies=("auto",), seeds=1, test=measured())

    assert result.rows[0].test_agreements[0] > 0.6


def test_the_files_hold_the_table_and_every_number(tmp_path):
    result = run(out=tmp_path / "c", test=measured(), price_per_1000=0.5)

    page = (tmp_path / "c" / "report.md").read_text()
    assert result.table in page and all(markdown_text(note) in page for note in result.notes)
    assert f"{result.queries:,} queries (price {result.queries / 2000:,.2f}), 60 of them" in page
    html = (tmp_path / "c" / "report.html").read_text()
    best = max(result.rows, key=lambda row: (sum(row.test_agreements), -row.queries))
    assert result.best == best.strategy
    assert re.search(
        "test images get the teacher&#39;s class from students of "
        f"(the strategy|each of the strategies) {best.strategy}",
        html,
    )
    links = re.findall(r'href="([^"#]+/report.html)"', html)
    assert len(links) == 2 * len(result.rows) and all(
        (tmp_path / "c" / link).is_file() for link in links
    )
    content = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert content["teacher_accuracy"] == 1  # the labels of the test images are its answers
    assert "teacher's own accuracy on the test images is 100.0 %" in page
    assert content["queries"] == result.queries and content["test_queries"] == MEASURED
    assert content["steps"] == result.steps == 12 and content["seeds"] == [0, 1]
    for row, stored in zip(result.rows, content["rows"], strict=True):
        assert stored["strategy"] == row.strategy and stored["queries"] == row.queries
        assert [each["accuracy"] for each in stored["students"]] == row.accuracies
        low, high = stored["interval"]
        assert low <= stored["held_out_agreement"] <= high
    assert result.folder == tmp_path / "c"


def test_students_without_images_are_not_called_better_by_their_pseudo_samples(tmp_path):
    result = run(out=tmp_path / "c", strategies=("zero-shot", "decisions", "augmented"), seeds=1)

    page = (tmp_path / "c" / "report.md").read_text()
    best = max(result.rows[1:], key=lambda row: (row.held_out[0] / row.held_out[1], -row.queries))
    named = f"(the strategy|each of the strategies) {best.strategy}"
    headline = page.split("- **")[0]
    assert re.search(f"from students of {named}", headline) and "zero-shot" not in headline
    assert "queries of all students\n" in page


def summary_of(*matches: int, held_out: int) -> ComparisonSummary:
    """A comparison of strategies whose students agree on so many of the held-out images."""
    strategies = COMPARED[: len(matches)]
    rows = [
        ComparisonRow(name, (ComparedStudent(0, 400, (count, held_out), None, None, 1.0),))
        for name, count in zip(strategies, matches, strict=True)
    ]
    prepared = prepare_comparison(
        teacher(), images(), budget=400, strategies=strategies, student="linear", seeds=1,
        settings=QUICK, out=None, resume=False, test=None, ask_about_test=True,
    )  # fmt: skip
    return ComparisonSummary(prepared, 12, rows)


@pytest.mark.parametrize(
    ("matches", "held_out", "as_good"),
    [
        ((26, 24), 30, ["augmented"]),
        ((24, 26, 10), 30, ["auto"]),
        ((26, 10), 30, []),
        ((2600, 2400), 3000, []),
    ],
)
def test_a_difference_that_may_be_chance_is_called_so(matches, held_out, as_good, tmp_path):
    summary = summary_of(*matches, held_out=held_out)

    assert summary.best.as_good == as_good
    write_comparison(tmp_path, summary)
    headline = (tmp_path / "report.md").read_text().split("- **")[0]
    assert f"the highest of {len(matches)}." in headline
    for text in (headline, summary.best.statement):
        assert ("may be chance" in text) is bool(as_good)
        assert ("--test" in text) is bool(as_good)
    assert summary.best.row.strategy in summary.best.statement.split(" is the best")[0]
    stored = json.loads((tmp_path / "compare.json").read_text())["best"]
    assert stored["may_be_chance"] == as_good and stored["measurement"] == "held-out agreement"


@pytest.mark.parametrize("steps", [599, 600, 6_000])
def test_a_short_training_is_stated_beside_the_order_that_it_gave(tmp_path, steps):
    summary = replace(summary_of(26, 10, held_out=30), steps=steps)

    write_comparison(tmp_path, summary)
    page = (tmp_path / "report.md").read_text()
    headline = page.split("- **")[0]
    for text in (headline, summary.best.statement):
        assert ("after longer training, another strategy may" in text) is (steps < 6_000)
        assert ("for only 600 steps, 10 % of the default of 6,000;" in text) is (steps == 600)
    assert ("with fewer than 600 training steps, options" in page.lower()) is (steps == 599)
    assert ("6,000 training steps each (the default)" in page) is (steps == 6_000)


def row_of(strategy: str, held_out: int, *matches: np.ndarray, queries: int = 400) -> ComparisonRow:
    """A row whose students agree with the teacher on these test images, and on so many of 50."""
    return ComparisonRow(
        strategy,
        tuple(
            ComparedStudent(seed, queries, (held_out, 50), None, each.mean(), 1.0, each)
            for seed, each in enumerate(matches)
        ),
    )


def test_test_images_decide_and_the_statement_says_so():
    images = np.arange(2_000)
    first = [images % 100 < 80, (images + 1) % 100 < 80]
    second = [each & (images % 40 > 0) for each in first]
    best = BestStrategy([row_of("auto", 49, *second), row_of("sd", 40, *first)], 2)

    assert best.row.strategy == "sd" and best.measurement == "test agreement"
    low, high = wilson_interval(1_600, 2_000)
    assert best.statement.startswith(
        "sd is the best of 2 strategies by agreement on 2,000 test images: 80.0 % (95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f} %). The next, auto, is 2.0 percentage points lower"
    ), "the shares overlap, but the images are the same"
    assert "more than chance" in best.statement and "may be chance" not in best.statement
    assert "held-out images favour auto, but the test images count" in best.statement
    agreed = BestStrategy([row_of("auto", 40, *second), row_of("sd", 40, *first)], 2)
    assert agreed.row.strategy == "sd"
    one = BestStrategy([row_of("auto", 49, *second[:1]), row_of("sd", 40, *first[:1])], 1)
    assert "with one seed" in one.statement
    alone = BestStrategy([row_of("sd", 40, *first)], 2).statement
    assert alone.startswith("sd, agreement on 2,000 test images: 80.0 %") and "next" not in alone


def test_equally_good_strategies_are_called_so_and_the_cheapest_of_them_is_named():
    images = np.arange(10)
    # As means of shares, 3/10 and 5/10 could differ from 2/10 and 6/10 in the last bit.
    auto = row_of("auto", 40, images < 3, images < 5)
    sd = row_of("sd", 40, images < 2, images < 6, queries=100)
    worse = row_of("bd", 40, images < 1, images < 1)

    best = BestStrategy([worse, auto, sd], 2)
    assert best.row is sd and best.as_good[0] == "auto"
    assert best.statement.startswith(
        "sd and auto are equally good, and the best of 3 strategies by agreement on 10 test "
    )
    for text in (best.statement, best.headline):
        assert " Of these, sd sends the fewest queries, 100 per student. The next, bd, is" in text
    assert "from students of each of the strategies sd and auto, the highest of 3." in best.headline
    both = BestStrategy([auto, replace(auto, strategy="augmented")], 2)
    assert both.statement.startswith("auto and augmented are equally good by agreement on 10 test")
    assert "lower" not in both.statement and "fewest" not in both.statement
    assert "the highest" not in both.headline
    held_out = summary_of(26, 26, held_out=30).best.statement
    assert held_out.startswith("auto and augmented are equally good by agreement on 30 held-out")
    assert "order" not in held_out and "--test" in held_out


@pytest.mark.parametrize(
    ("held_out", "favoured"),
    [
        ({"mbd": 40, "decisions": 40}, ""),
        ({"mbd": 40, "zero-shot": 49}, ""),
        ({"zero-shot": 40, "decisions": 49}, ""),
        ({"mbd": 40, "zero-shot": 49, "decisions": 41, "auto": 41}, "auto and decisions"),
    ],
)
def test_only_comparable_held_out_images_favour_another_strategy(held_out, favoured):
    images = np.arange(100)
    rows = [
        row_of(strategy, count, images < (80 if number == 0 else 10))
        for number, (strategy, count) in enumerate(held_out.items())
    ]
    statement = BestStrategy(rows[::-1], 1, without_images=("zero-shot",)).statement

    assert (" favour " in statement) is bool(favoured)
    if favoured:
        assert f"The held-out images favour {favoured}, but the test images count" in statement


def test_the_statement_has_the_interval_of_the_table():
    images = np.arange(6)  # on average 3.5 of 6 are right, which each must round in the same way
    row = row_of("auto", 40, images < 3, images < 4)
    low, high = wilson_interval(4, 6)
    interval = f"{100 * low:.1f} to {100 * high:.1f}"

    assert f"(95 % interval {interval} %)" in BestStrategy([row], 2).statement
    assert f"| {interval} |" in comparison_table([row])


def test_the_statement_is_returned_printed_in_the_report_and_the_same_after_a_resumption(tmp_path):
    given = {"strategies": ("augmented", "decisions"), "out": tmp_path / "c", "test": measured()}

    result = run(budget=300, **given)
    again = run(budget=300, resume=True, **given)

    assert again.statement == result.statement and again.rows == result.rows
    assert result.statement.startswith(f"{result.best} is the best of 2 strategies by agreement on")
    for row, other in zip(result.rows, again.rows, strict=True):
        assert np.array_equal(row.test_matches, other.test_matches)
        assert row.test_matches.mean() == pytest.approx(np.mean(row.test_agreements))
    page = (tmp_path / "c" / "report.md").read_text()
    _, certainty = result.statement.split(" The next,")
    assert certainty in page and f"| decisions | 120{UNSPENT_MARK} |" in page
    note = (
        f"{UNSPENT_MARK} decisions did not spend its 300 queries: this strategy has no use for more"
    )
    assert note in page and any(each.startswith(note) for each in result.notes)
    assert not any("augmented did not" in each for each in result.notes)


def test_accuracy_alone_costs_no_query_and_is_measured_again_on_other_images(tmp_path):
    counting, others = CountingTeacher(teacher()), measured()
    given = {"strategies": ("decisions",), "seeds": 1, "out": tmp_path / "c"}
    others = others.with_labels((others.labels + 1) % 4, None)

    result = run(counting, test=measured(), ask_about_test=False, **given)
    asked = counting.total
    repeated = run(counting, test=others, ask_about_test=False, resume=True, **given)
    without = run(counting, resume=True, **given)

    assert asked == counting.total == result.queries == result.rows[0].students[0].queries
    (student,) = result.rows[0].students
    network = load_teacher(tmp_path / "c/decisions-0/student.safetensors")
    assert student.accuracy == db3kd.evaluate(network, measured())
    assert student.test_agreement is None and result.test_queries == 0
    assert repeated.rows[0].accuracies == [db3kd.evaluate(network, others)]
    assert without.rows[0].accuracies == []
    assert "Accuracies on the test images" in " ".join(result.notes)
    with pytest.raises(ValueError, match="test: expected labelled images"):
        run(test=measured(labelled=False), ask_about_test=False)


def test_without_out_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert run(strategies=("decisions",), seeds=1).folder is None
    # torch may make a folder of its own when it is first imported in full.
    left = [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]
    assert left == []
    with pytest.raises(TeacherError) as raised:
        run(RaisingTeacher(teacher(max_batch=16), 150), seeds=1)
    *_, note = raised.value.__notes__
    assert Path(note.split("out='")[1].split("'")[0]).is_dir()
    with pytest.raises(TeacherError) as kept:
        run(RaisingTeacher(teacher(max_batch=16), 150), seeds=1, out=tmp_path / "run")
    *_, note = kept.value.__notes__
    assert note.endswith("; continue with resume=True")
    with pytest.raises(ValueError, match="resume: needs out="):
        run(resume=True)


def test_networks_are_accepted_and_test_images_of_another_shape_are_not():
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))

    assert run(strategies=("decisions",), seeds=1, student=network).rows[0].students
    with pytest.raises(ValueError, match="test: expected shape"):
        run(test=ImageSet.from_arrays(images().read(range(5))[..., :5].numpy()))


class Normalised(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": replace(QUICK, proxy="lenet99")}, "proxy: .*lenet99"),
        (
            {
                "settings": replace(QUICK, training=replace(QUICK.training, batch_size=1)),
                "student": Normalised(),
            },
            "batch normalisation needs a batch_size of at least 2",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_a_query(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(RaisingTeacher(teacher(), 0), test=measured(), out=tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_a_short_time_limit_is_said_with_what_can_be_done(caplog):
    settings = replace(QUICK, training=replace(QUICK.training, steps=None), time_limit=1e-3)

    run(strategies=["decisions"], seeds=1, settings=settings)

    assert "only another comparison with a longer time limit" in caplog.text
    assert "resume" not in caplog.text


def test_a_comparison_that_is_stopped_again_needs_rare_classes_only_once(tmp_path):
    pixels = torch.rand(3_000, *SHAPE, generator=torch.Generator().manual_seed(0)) / 2
    pixels[[1, 2], 0, 0, 0] = 1
    counting = CountingTeacher(RareTeacher(SHAPE))

    def compared(asked: Any, **options: Any) -> Comparison:
        return db3kd.compare(
            asked, pixels, budget=3_000, strategies=("decisions", "augmented"), student="linear",
            settings=QUICK, seeds=1, out=tmp_path / "c", resume=True, **options,
        )  # fmt: skip

    (tmp_path / "c").mkdir()
    with pytest.raises(SingleClassError):
        compared(counting)
    with pytest.raises(TeacherError, match="the line is dead"):
        compared(RaisingTeacher(counting, 100), rare_classes=True)

    assert compared(counting).queries == counting.total == 6_000


def lose_weights(folder: Path) -> None:
    (folder / "student.safetensors").unlink()


def damage_weights(folder: Path) -> None:
    content = (folder / "student.safetensors").read_bytes()
    (folder / "student.safetensors").write_bytes(content[: len(content) // 2])


def lose_weights_and_networks(folder: Path) -> None:
    lose_weights(folder)
    shutil.rmtree(folder / "networks")


def lose_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("another file")


def lose_answers(folder: Path) -> None:
    lose_weights(folder)
    for shard in folder.glob("*.parquet"):
        shard.unlink()


@pytest.mark.parametrize("lose", [lose_weights, damage_weights, lose_weights_and_networks])
def test_a_lost_student_is_made_again_without_a_query(tmp_path, caplog, lose):
    options = {"strategies": ["decisions"], "seeds": 1, "test": measured(), "out": tmp_path / "m"}
    first = run(**options)
    folder = tmp_path / "m" / "decisions-0"
    before = weights(load_teacher(folder / "student.safetensors").module)
    lose(folder)
    asked = CountingTeacher(teacher())
    again = run(asked, resume=True, **options)
    assert asked.total == 0
    assert weights(load_teacher(folder / "student.safetensors").module).equal(before)
    assert again.rows[0].students[0].held_out == first.rows[0].students[0].held_out
    (record,) = [each for each in caplog.records if "made again" in each.getMessage()]
    assert str(folder / "student.safetensors") in record.getMessage()


@pytest.mark.parametrize("lose", [lose_folder, replace_by_a_file, lose_answers])
def test_a_student_without_answers_is_named_and_costs_no_query(tmp_path, caplog, lose):
    options = {"strategies": ["decisions"], "seeds": 1, "out": tmp_path / "m"}
    first = run(**options)
    folder = tmp_path / "m" / "decisions-0"
    lose(folder)
    asked = CountingTeacher(teacher())
    again = run(asked, resume=True, **options)
    assert asked.total == 0 and again.rows == first.rows
    (record,) = [each for each in caplog.records if "only its figures" in each.getMessage()]
    assert str(folder / "student.safetensors") in record.getMessage()


def test_an_intact_comparison_is_resumed_without_a_warning(tmp_path, caplog):
    options = {"strategies": ["decisions"], "seeds": 1, "out": tmp_path / "m"}
    first = run(**options)
    caplog.clear()
    assert run(resume=True, **options).rows == first.rows
    assert not [each for each in caplog.records if "expected the student" in each.getMessage()]
