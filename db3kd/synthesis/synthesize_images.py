"""`synthesize`: pseudo samples in memory, or in a run folder."""

from pathlib import Path

from db3kd.arguments.plain import check_flag, check_out, check_type
from db3kd.data.arguments import TeacherLike, as_teacher
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES, PseudoSamples, load_pseudo_samples
from db3kd.progress import ProgressListener, check_progress, listening
from db3kd.querying.single_process import check_single_process
from db3kd.storage.changed_teachers import check_accepts_teacher
from db3kd.storage.existing_runs import check_output
from db3kd.synthesis.sample_run import write_samples
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.synthesis import Synthesis, sample_display


def synthesize(
    teacher: TeacherLike,
    settings: SynthesisSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: ProgressListener | bool = True,
    accept_changed_teacher: bool = False,
) -> PseudoSamples:
    """Makes pseudo samples for a teacher from its decisions alone.

    The seed, the number of a sample, the teacher and the settings determine a sample. A class for
    which no image was found has no samples; the other classes are not affected.

    Example:
        >>> settings = db3kd.SynthesisSettings.guided("lenet5-half")
        >>> samples = db3kd.synthesize(teacher, settings, out="runs/pseudo")

    Args:
        teacher: A teacher, or a torch module that takes images in [0, 1].
        settings: How samples are made; the defaults if None.
        out: A run folder that keeps each answer and the samples, for `db3kd.load_pseudo_samples`.
            Without one, samples and answers are in memory only, and an error loses them.
        resume: Whether to continue the run in `out`; an empty folder begins it. The samples are as
            without an interruption. Each time the process is killed, at most one call is paid
            twice.
        progress: True shows the samples and queries on standard error; False shows nothing; a
            listener receives their counts (docs/guide.md, "Progress").
        accept_changed_teacher: Whether the run in `out` keeps its answers and continues even if
            the teacher has another fingerprint. True needs `resume`.

    Returns:
        The samples, in the order of their numbers.

    Raises:
        TeacherError: If the teacher failed, or if it put all random images in one class.
        ValueError: If the budget is 0, if the random images need a height and a width and the
            images of the teacher have none, if `out` holds another run, or if a launcher started
            several processes.
        FileExistsError: If `out` is not empty and `resume` is False.
        FileNotFoundError: If `out` does not exist and `resume` is True.
        OSError: If the disk is full or not writable.
    """
    check_single_process()
    settings = SynthesisSettings() if settings is None else settings
    check_type(settings, SynthesisSettings, "settings", "SynthesisSettings")
    check_flag(resume, "resume")
    check_progress(progress)
    check_accepts_teacher(accept_changed_teacher, resume)
    check_out(out, resume)
    if out is None:
        with listening(progress, lambda: sample_display(settings)) as listener:
            synthesis = Synthesis(as_teacher(teacher), settings, progress=listener)
            return PseudoSamples.concat([chunk for _, chunk in synthesis.chunks()])
    check_output(out, resume, PSEUDO_SAMPLES.format)
    folder = Path(out).absolute()  # a teacher may change the working directory
    write_samples(
        as_teacher(teacher),
        settings,
        out,
        resume=resume,
        progress=progress,
        accept_changed_teacher=accept_changed_teacher,
    )
    return load_pseudo_samples(folder)
