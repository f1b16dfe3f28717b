"""Zero-shot: how good students of pseudo samples are, and which parts are worth their queries.

    python -m benchmarks.students.zero_shot curve --data DIR --teacher FILE --save NAME
    python -m benchmarks.students.zero_shot ablation --data DIR --teacher FILE --save NAME

`curve` compares presets over numbers of queries with plain noise and with real images; `ablation`
varies one part of the procedure at a time. The teacher is trained on the whole train split. Every
student of a table trains for the same number of steps, and test images are used once, at its end.
The result is written after each row.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.common.record import keep, rows_so_far
from benchmarks.common.setting import parser, trained_teacher
from benchmarks.students.label_quality import margins
from benchmarks.students.methods import decision_method, soft_label_method
from db3kd.data.image_set import ImageSet
from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.soft_labels import margin_soft_labels
from db3kd.models.networks import build_model
from db3kd.querying import decide_all
from db3kd.report.tables import markdown_table, mean_and_deviation
from db3kd.scale.search import search_scale
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.starts import STARTS
from db3kd.synthesis.synthesis import Synthesis, SynthesisSettings
from db3kd.teachers import Teacher, TeacherError
from db3kd.training.evaluation import predict, share_equal
from db3kd.training.loss import KDLoss
from db3kd.training.row_batches import balanced_rows
from db3kd.training.settings import TrainSettings

Students = Callable[[int], torch.nn.Module]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all rows of a table have in common."""

    teacher: Teacher
    train: ImageSet
    student: Callable[[], torch.nn.Module]
    training: TrainSettings
    options: argparse.Namespace


@dataclasses.dataclass(frozen=True)
class Row:
    """The students of one transfer set.

    Attributes:
        name: The transfer set.
        images: Number of images in it.
        queries: Total number of queries for these images and their labels.
        accuracies: Accuracy of each student on the test images, in [0, 1], one per seed.
        agreements: Share of test images that student and teacher put in one class, one per seed.
    """

    name: str
    images: int
    queries: int
    accuracies: Sequence[float] = ()
    agreements: Sequence[float] = ()

    def as_markdown(self) -> str:
        """Returns the row: name, images, queries, accuracy and agreement in percent."""
        shares = mean_and_deviation(self.accuracies), mean_and_deviation(self.agreements)
        cells = (self.name, f"{self.images:,}", f"{self.queries:,}", *shares)
        return markdown_table(cells, []).splitlines()[0]


@dataclasses.dataclass(frozen=True)
class Made:
    """Pseudo samples, the queries they cost, and the CPU time of making them."""

    samples: PseudoSamples
    queries: int
    seconds: float

    def facts(self) -> dict[str, float]:
        """What the result keeps: the classes reached, the share of the rarest, and the time."""
        counts = torch.bincount(self.samples.decision, minlength=self.samples.classes)
        return {
            "reached": int((counts > 0).sum()),
            "rarest": int(counts.min()) / len(self.samples),
            "cpu_seconds": self.seconds,
        }

    @property
    def images(self) -> ImageSet:
        """The samples as an image set."""
        return self.samples.as_image_set()


def main() -> None:
    """Makes the rows of a part and writes them."""
    options = _options()
    trained = trained_teacher(options)
    teacher, train, test = trained.teacher, trained.train, trained.test
    training = TrainSettings(
        steps=options.steps, learning_rate=3e-3, schedule="cosine", device="cpu"
    )
    student = partial(build_model, options.student, train.image_shape, trained.classes)
    setting = Setting(teacher, train, student, training, options)
    decisions = decide_all(teacher, test.read, torch.arange(len(test)))
    rows = []
    if options.resume:
        whole = _result(setting, 0.0, [])
        compared = {name: whole[name] for name in ("part", "data", "student", "training")}
        rows = rows_so_far(options.save, compared)
    parts = {"curve": _curve, "ablation": _ablation}
    for name, make in parts[options.part](setting):
        if options.only not in name or any(row["name"] == name for row in rows):
            continue
        try:
            row, students, facts = make(name)
        except TeacherError as error:
            print(f"{name}: {error}", flush=True)
            continue
        predicted = [predict(students(seed), test) for seed in range(options.seeds)]
        row = dataclasses.replace(
            row,
            accuracies=[share_equal(classes, trained.test_labels) for classes in predicted],
            agreements=[share_equal(classes, decisions) for classes in predicted],
        )
        rows.append(dataclasses.asdict(row) | facts)
        print(row.as_markdown(), flush=True)
        keep(options, _result(setting, trained.accuracy, rows))


Facts = dict[str, float]
Case = tuple[str, Callable[[str], tuple[Row, Students, Facts]]]
"""The name of a row, and a function of the name that makes the row, its students, and what else is
kept about its images."""


def _curve(setting: Setting) -> Iterator[Case]:
    """Presets over numbers of queries, and baselines."""
    options = setting.options
    for count in options.queries:
        yield f"plain starts, {count:,}", _on(setting, SynthesisSettings(samples=count))
        guided = SynthesisSettings.guided(samples=count)
        yield f"guided, {count:,}", _on(setting, guided)
        noise = SynthesisSettings(samples=count, starts="paper", mixtures=0.0)
        yield f"plain noise as in the paper, {count:,}", _on(setting, noise)
    yield "real images", partial(_real, setting)
    count = options.queries[-1]
    for effort in options.effort:
        balanced = SynthesisSettings(samples=count, effort=effort)
        yield f"the most balanced {count:,} of {effort:g} times as many", _on(setting, balanced)
    for count in options.labelled:
        guided = SynthesisSettings.guided(samples=count)
        yield f"guided, {count:,}, BD soft labels", _on(setting, guided, soft=True)


def _ablation(setting: Setting) -> Iterator[Case]:
    """Starts, moves, warm starts, soft labels and numbers of samples, one at a time."""
    options = setting.options
    for starts in STARTS:
        settings = SynthesisSettings(samples=options.starts, starts=starts, mixtures=0.0)
        yield f"starts: {starts}", _on(setting, settings)
    mixed = SynthesisSettings(samples=options.starts, starts="paper")
    yield "starts: paper, with masked mixes", _on(setting, mixed)
    for count in (0, 5, 10, 20, 40):
        settings = SynthesisSettings(samples=options.moved, moves=Moves(count))
        yield f"{count} moves", _on(setting, settings)
        if count in (0, 5):
            yield f"{count} moves, BD soft labels", _on(setting, settings, soft=True)
    cold = SynthesisSettings(samples=options.moved, moves=Moves(5, warm=False))
    yield "5 moves, each from 20 random directions", _on(setting, cold)
    for count in options.queries:
        yield f"no moves, {count:,} samples", _on(setting, SynthesisSettings(samples=count))
    for pool in (1, 8):
        acquisition = AcquisitionSettings(pool=pool)
        settings = SynthesisSettings(samples=options.starts, acquisition=acquisition)
        name = (
            f"the best of {pool} starts and masked mixes" if pool > 1 else "starts and masked mixes"
        )
        yield name, _on(setting, settings)


def _on(
    setting: Setting, settings: SynthesisSettings, soft: bool = False
) -> Callable[[str], tuple[Row, Students, Facts]]:
    """Students that learn the decisions for pseudo samples, and BD labels too if `soft`."""

    def make(name: str) -> tuple[Row, Students, Facts]:
        made = _make(setting, settings)
        if soft:
            return *_soft_row(name, setting, made), made.facts()
        row = Row(name, len(made.samples), made.queries)
        return row, _on_decisions(setting, made.images, made.samples.decision), made.facts()

    return make


def _real(setting: Setting, name: str) -> tuple[Row, Students, Facts]:
    """The training images of the teacher, with its decisions."""
    real = setting.train
    decisions = decide_all(setting.teacher, real.read, torch.arange(len(real)))
    return Row(name, len(real), len(real)), _on_decisions(setting, real, decisions), {}


def _make(setting: Setting, settings: SynthesisSettings) -> Made:
    begun = time.process_time()
    synthesis = Synthesis(setting.teacher, settings)
    samples = PseudoSamples.concat([chunk for _, chunk in synthesis.chunks()])
    assert synthesis.collected is not None
    queries = synthesis.collected.queries + int(samples.queries.sum())
    moved = samples.distance[samples.distance.isfinite()]
    distance = f", mean distance {moved.mean():.3f}" if len(moved) else ""
    made = Made(samples, queries, time.process_time() - begun)
    facts = made.facts()
    print(
        f"made {len(samples):,} with {queries:,} queries in {made.seconds:.0f} s of CPU time, "
        f"{facts['reached']} classes, the rarest {facts['rarest']:.2%}{distance}",
        flush=True,
    )
    return made


def _soft_row(name: str, setting: Setting, made: Made) -> tuple[Row, Students]:
    images, loss = made.images, KDLoss()
    labelling = LabelSettings("bd", queries_per_pair=setting.options.queries_per_pair)
    labels = label(setting.teacher, images, labelling, progress=False)
    scale = search_scale(
        setting.student,
        images,
        labels.distances,
        labels.decision,
        margin_soft_labels,
        loss,
        dataclasses.replace(setting.training, steps=max(1, setting.options.steps // 5)),
        students=2,
    ).scale
    soft = margins(labels, scale, loss)
    # The decision of a sample is known from its synthesis, so it is not paid for again.
    queries = made.queries + int(labels.queries.sum()) - len(labels)
    rows = balanced_rows(labels.decision, 0.5)
    method = soft_label_method(
        name,
        queries / len(images),
        setting.student,
        images,
        labels.decision,
        soft,
        loss,
        setting.training,
        rows=rows,
    )
    return Row(name, len(images), queries), method.run


def _on_decisions(setting: Setting, images: ImageSet, decisions: Tensor) -> Students:
    rows = balanced_rows(decisions, 0.5)
    return decision_method(setting.student, images, decisions, setting.training, rows=rows).run


def _result(setting: Setting, accuracy: float, rows: list[dict[str, object]]) -> dict[str, object]:
    options = setting.options
    return {
        "part": options.part,
        "data": setting.train.name,
        "teacher_accuracy": accuracy,
        "student": options.student,
        "training": dataclasses.asdict(setting.training),
        "rows": rows,
    }


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("part", choices=("curve", "ablation"))
    options.add_argument("--resume", action="store_true", help="keep the rows of an earlier run")
    options.add_argument("--only", default="", help="rows with this in their names")
    options.add_argument("--student", default="lenet5-half")
    options.add_argument(
        "--steps", type=int, default=4000, help="training steps of every student, batch 128"
    )
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument(
        "--queries", type=int, nargs="+", default=[20_000, 100_000, 400_000], help="budgets"
    )
    options.add_argument("--effort", type=float, nargs="*", default=[], help="starts per sample")
    options.add_argument(
        "--labelled", type=int, nargs="*", default=[], help="guided samples with soft labels"
    )
    options.add_argument("--queries-per-pair", type=int, default=30, help="budget of soft labels")
    options.add_argument("--starts", type=int, default=20_000, help="samples of each kind of start")
    options.add_argument("--moved", type=int, default=1000, help="samples that are moved")
    return options.parse_args()


if __name__ == "__main__":
    main()
