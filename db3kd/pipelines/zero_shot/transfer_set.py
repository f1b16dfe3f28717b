"""The transfer set of a zero-shot run: pseudo samples and their labels."""

from dataclasses import dataclass
from pathlib import Path

from db3kd.argument_types import check_flag, check_path, check_type
from db3kd.data.arguments import TeacherLike, as_teacher
from db3kd.data.pseudo_samples import PseudoSamples, load_pseudo_samples
from db3kd.labelling.label_run import LabelRun, open_run
from db3kd.labelling.planned_run import RunExecution
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.source import Source
from db3kd.pipelines.run_layout import LABELS_FOLDER, SAMPLES_FOLDER
from db3kd.pipelines.zero_shot.settings import ZeroShotSettings
from db3kd.storage.existing_runs import check_parent_folder
from db3kd.synthesis.sample_run import SynthesisTotals, write_pseudo_samples
from db3kd.teachers import Teacher
from db3kd.teachers.rescaled import takes_unit_images
from db3kd.wording import counted


@dataclass(frozen=True, repr=False)
class TransferSet:
    """What students are trained on; only the teacher is needed to make it.

    Attributes:
        totals: The totals of the run that made the pseudo samples.
        samples: The pseudo samples, with the teacher's decisions.
        label_run: The run of their labels; None if only decisions are distilled.
    """

    totals: SynthesisTotals
    samples: PseudoSamples
    label_run: LabelRun | None

    def __repr__(self) -> str:
        queries = counted(self.totals.queries, "query")
        return f"TransferSet({self.samples!r}, {queries}, {self.label_run!r})"


def make_transfer_set(
    teacher: TeacherLike, out: str | Path, settings: ZeroShotSettings, *, resume: bool = False
) -> TransferSet:
    """Makes pseudo samples and, if the settings ask for them, their labels.

    Students take images in [0, 1], so the pseudo samples are in [0, 1] too, whatever the bounds of
    the teacher are.

    Args:
        teacher: The teacher to ask.
        out: The folder whose subfolders "pseudo-samples" and "labels" the runs are written to.
        settings: How samples and labels are made.
        resume: Whether to continue the runs in these folders.

    Returns:
        The transfer set, read back from the folders.

    Raises:
        ValueError: If it is not clear how to map [0, 1] to the teacher's bounds, or if
            `write_pseudo_samples` or `write_run` rejects an argument.
        FileExistsError: If a folder is not empty and `resume` is false.
        TeacherError: If the teacher fails, or puts all images in one class.
    """
    teacher, out = check_zero_shot(teacher, out, settings, resume)
    folder = out / SAMPLES_FOLDER
    totals = write_pseudo_samples(folder, teacher, settings.synthesis, resume=resume)
    label_run = None
    if settings.labelling is not None:
        source = samples_source(out)
        # Making the samples has shown that the teacher returns several classes.
        execution = RunExecution(rare_classes=True)
        write_run(
            out / LABELS_FOLDER,
            teacher,
            source,
            settings.labelling,
            resume=resume,
            execution=execution,
        )
        label_run = open_run(out / LABELS_FOLDER, source.data)
    return TransferSet(totals, load_pseudo_samples(folder), label_run)


def samples_source(out: Path) -> Source:
    """Returns the pseudo samples of the zero-shot run in a folder as the source of a label run."""
    return Source(str((out / SAMPLES_FOLDER).resolve()))


def check_zero_shot_folder(out: Path, resume: bool) -> None:
    """Checks that a zero-shot run can be written to a folder.

    Raises:
        FileExistsError: If it holds anything else, or a zero-shot run and `resume` is false.
        NotADirectoryError: If the path leads through a file.
    """
    check_parent_folder(out, [SAMPLES_FOLDER], "a run of db3kd zero-shot", resume)


def check_zero_shot(
    teacher: TeacherLike, out: str | Path, settings: ZeroShotSettings, resume: bool = False
) -> tuple[Teacher, Path]:
    """Returns a teacher that takes images in [0, 1], and the folder, after checks.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If it is not clear how to map [0, 1] to the teacher's bounds.
    """
    check_type(settings, ZeroShotSettings, "settings", "ZeroShotSettings")
    check_flag(resume, "resume")
    return takes_unit_images(as_teacher(teacher)), check_path(out, "out")
