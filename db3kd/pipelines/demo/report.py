"""The report of the demo: the student, the table of strategies, and commands to try next."""

from dataclasses import dataclass
from pathlib import Path

from db3kd.pipelines.comparison.compare import Comparison
from db3kd.pipelines.demo.settings import DemoSettings
from db3kd.pipelines.run_layout import REPORT_FILE
from db3kd.planning import STRATEGY_TEXTS
from db3kd.report import ComparisonRow, Summary, percent, write_summary
from db3kd.report.comparison import comparison_block
from db3kd.report.student_blocks import Section, Settings, Table
from db3kd.wording import counted

STUDENTS_FOLDER = "students"
TEACHER_FILE = "teacher.safetensors"
"""What the folder of a demo holds besides its report."""


@dataclass(frozen=True, repr=False)
class DemoResult:
    """What the demo measured.

    Attributes:
        settings: The sizes of the demo.
        folder: The folder of the demo.
        teacher_accuracy: Share of test images that the teacher puts in their class, in [0, 1].
        train_images: Number of images that the teacher was trained on.
        test_images: Number of test images.
        comparison: The comparison of the strategies.
        white_box: Students that see the teacher's logits.
    """

    settings: DemoSettings
    folder: Path
    teacher_accuracy: float
    train_images: int
    test_images: int
    comparison: Comparison
    white_box: ComparisonRow

    def __repr__(self) -> str:
        return f"DemoResult({self.headline})"

    @property
    def page(self) -> Path:
        """The page report.html."""
        return self.folder / REPORT_FILE

    @property
    def rows(self) -> tuple[ComparisonRow, ...]:
        """The rows of the table."""
        return (*self.comparison.rows, self.white_box)

    @property
    def headline(self) -> str:
        """One sentence on the student of the first strategy."""
        return f"{self._share} {self._statement}"

    @property
    def next_commands(self) -> list[tuple[str, str]]:
        """What a user may do next, with the command for each."""
        teacher = "--teacher my_package.my_module:predict --classes 10 --data my_images"
        compared = ",".join(self.settings.strategies)
        return [
            (
                "your teacher and images: the plan, without a query",
                f"db3kd distill {teacher} --budget 20000 --dry-run",
            ),
            (
                "your teacher and images",
                f"db3kd distill {teacher} --budget 20000 --out runs/mine",
            ),
            (
                "this teacher, a larger budget and the full training",
                f"db3kd distill --teacher {self.folder / TEACHER_FILE} --data {self.settings.data} "
                f"--limit {self.settings.images} --budget 100000 --student {self.settings.student} "
                "--out runs/longer",
            ),
            (
                "this table with three seeds and the full training",
                f"db3kd compare --teacher {self.folder / TEACHER_FILE} --data "
                f"{self.settings.data} --limit {self.settings.images} --budget "
                f"{self.settings.budget} --strategies {compared} --student "
                f"{self.settings.student} --test {self.settings.data} --seeds 3 "
                "--out runs/compare",
            ),
        ]

    @property
    def _share(self) -> str:
        return percent(self.comparison.rows[0].students[0].test_agreement or 0.0)

    @property
    def _statement(self) -> str:
        student, settings = self.comparison.rows[0].students[0], self.settings
        return (
            f"of {counted(self.test_images, 'test image')} get the teacher's class from a student "
            f"that learned from {counted(settings.images, 'image')} without labels and "
            f"{counted(student.queries or 0, 'decision')} of the teacher"
        )

    def summary(self) -> Summary:
        """Returns what the page shows."""
        first = self.comparison.rows[0]
        student, (white_box, *_) = first.students[0], self.white_box.students
        run = f"{STUDENTS_FOLDER}/{first.strategy}-{student.seed}"
        return Summary(
            title="A student of a black box",
            share=self._share,
            statement=f"{self._statement}.",
            key_figures=[
                (percent(student.accuracy or 0.0), "accuracy of the student on the test images"),
                (percent(self.teacher_accuracy), "accuracy of the teacher"),
                (percent(white_box.accuracy or 0.0), "accuracy of a student that sees the logits"),
                (f"{student.queries:,}", "queries of the student"),
            ],
            links=[
                ("The report of this student", f"{run}/{REPORT_FILE}"),
                ("The table of all students", f"{STUDENTS_FOLDER}/{REPORT_FILE}"),
            ],
            sections=[
                Section(
                    "Strategies at the same budget",
                    " ".join(self.notes),
                    [comparison_block(self.rows)],
                ),
                Section(
                    "What the strategies ask",
                    "",
                    [
                        Table(
                            ["strategy", "what the teacher is asked"],
                            [(name, STRATEGY_TEXTS[name]) for name in self.settings.strategies],
                            text_columns=2,
                        )
                    ],
                ),
                Section("What to run next", "", [Settings(self.next_commands)]),
            ],
        )

    @property
    def notes(self) -> list[str]:
        """Sentences on the teacher and the students."""
        settings = self.settings
        return [
            f"The teacher is a {settings.teacher}, trained for {settings.teacher_epochs} epochs on "
            f"{self.train_images:,} labelled images of {settings.data}.",
            *self.comparison.notes,
            "Training is short, so that the demo takes only minutes; db3kd distill trains longer.",
        ]


def write_demo_report(result: DemoResult) -> Path:
    """Writes report.html and report.md, and returns the path of report.html."""
    return write_summary(result.folder, result.summary())
