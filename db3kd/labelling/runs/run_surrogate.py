"""Surrogates that a run trains itself, on a part of its budget, before it labels.

The run decides its images first. Then it sends the surrogate's queries, and keeps their answers in
a journal like those of any stage. The trained weights are kept in the run's folder before the first
distance is searched, so that a resumed run uses the same ones: training gives the same bits only on
one machine with one number of threads.

How a surrogate is planned and trained is up to a `SurrogatePlanner`, such as `db3kd.AutoSurrogate`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from db3kd.data.image_source import NamedImages
from db3kd.errors import ArgumentTypeError, InputError
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.image_decisions import DECISIONS, SingleClassCheck, decide_images
from db3kd.labelling.settings import LabelSettings
from db3kd.progress import ProgressListener
from db3kd.progress.answers import show_answers
from db3kd.querying.session import AnswerJournal
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.manifest import SURROGATES
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers.base import Teacher
from db3kd.teachers.fingerprints import weights_fingerprint
from db3kd.wording import input_noun, plural

WEIGHTS = "_surrogate.safetensors"
"""The weights of a run's own surrogate, in its folder."""

_STAGE = "surrogate"
"""The stage in which a surrogate's training images are decided, and the name of its journal."""


class PlannedSurrogate(Protocol):
    """The surrogate of one run, before it is trained."""

    @property
    def queries(self) -> int:
        """The exact number of queries of its training; 0 if no surrogate is trained.

        The decisions of the images are not counted: the run needs them in any case.
        """
        ...

    @property
    def why(self) -> str:
        """The reason, in one sentence."""
        ...

    @property
    def entries(self) -> Mapping[str, Any]:
        """What the queries and the weights depend on, for the manifest."""
        ...

    def train(
        self,
        teacher: Teacher,
        images: NamedImages,
        decisions: Tensor,
        journal: AnswerJournal,
        log: ChoiceLog,
        weights: Path,
        *,
        progress: ProgressListener | bool,
    ) -> tuple[float, int] | None:
        """Asks the teacher, trains the surrogate and writes its weights.

        Args:
            teacher: The teacher of the run.
            images: The images of the run.
            decisions: [N] int64, their classes; -1 for images that the budget refused.
            journal: Keeps the answers, and supplies those that it has.
            log: Keeps the images that networks choose, and supplies those that it has.
            weights: The file to write.
            progress: See `db3kd.label`; a listener receives the counts of each stage.

        Returns:
            Its agreement with the teacher on held-out images, in [0, 1], and their number,
            augmented ones included; None if it is unknown.
        """
        ...

    def load(self, weights: Path) -> nn.Module:
        """Returns the network of a weights file that `train` wrote, in eval mode on the CPU."""
        ...


@runtime_checkable
class SurrogatePlanner(Protocol):
    """Decides whether a run trains a surrogate; `db3kd.AutoSurrogate` is one."""

    def plan(
        self, teacher: Teacher, images: int, labelled: int, settings: LabelSettings, budget: int
    ) -> PlannedSurrogate:
        """Plans the surrogate of a run, without a query.

        Args:
            teacher: The teacher of the run.
            images: The number of images of the run.
            labelled: How many of them are labelled.
            settings: The settings of the run.
            budget: Maximum number of queries of the run, whichever of its settings limits them.

        Raises:
            ValueError: If the run cannot use a surrogate.
        """
        ...


def network_or_planner(
    surrogate: nn.Module | SurrogatePlanner | None,
) -> tuple[nn.Module | None, SurrogatePlanner | None]:
    """Returns what the argument `surrogate` of a labelling is; the other one is None.

    Raises:
        TypeError: If it is neither a network, nor a planner, nor None.
    """
    if surrogate is None or isinstance(surrogate, nn.Module):
        return surrogate, None
    if isinstance(surrogate, SurrogatePlanner):
        return None, surrogate
    raise ArgumentTypeError(
        "surrogate",
        f"expected a torch.nn.Module or db3kd.AutoSurrogate(), got {type(surrogate).__name__}",
    )


@dataclass(frozen=True)
class RunSurrogate:
    """The surrogate of a run, made by `plan_surrogate`.

    Attributes:
        settings: The settings to label with, without the queries of the surrogate.
        network: The network that the caller passed, or None.
        planned: The surrogate that the run trains, or None.
        why: Why the run trains one, or why not; empty if it need not decide.
    """

    settings: LabelSettings
    network: nn.Module | None = None
    planned: PlannedSurrogate | None = None
    why: str = ""

    @property
    def queries(self) -> int:
        """The exact number of queries that train the surrogate."""
        return 0 if self.planned is None else self.planned.queries

    @property
    def manifest_entry(self) -> str | Mapping[str, object] | None:
        """What identifies the surrogate in a run's manifest.

        The fingerprint of a network that the caller passed; what the weights of one to be trained
        depend on; None without a surrogate.
        """
        if self.planned is not None:
            return self.planned.entries
        return None if self.network is None else weights_fingerprint(self.network)

    def train_or_load(
        self,
        run: RunFolder,
        teacher: Teacher,
        images: NamedImages,
        single_class: SingleClassCheck,
        *,
        progress: ProgressListener | bool,
    ) -> nn.Module | None:
        """Returns the network that a run searches with, and trains it if the run has not yet.

        Training queries the teacher, takes minutes, and writes the weights and an entry of the
        manifest. A network that the caller passed is returned as it is.

        Returns:
            The network; None if the run searches without a surrogate.

        Raises:
            TeacherError: If the teacher fails, or puts all images, or the first ones, in one class.
                Paid answers are kept.
            ValueError: If the weights in the folder are not those that the run searched with.
        """
        notes = run.manifest.get(SURROGATES, [])
        if self.planned is None:
            if self.why and not notes:
                run.note(SURROGATES, {"queries": 0, "why": self.why})
            return self.network
        file = run.path / WEIGHTS
        if notes:
            return _searched_with(self.planned, file, notes[-1])
        decisions = _decide(run, teacher, images, self.settings, single_class, progress)
        log = ChoiceLog(run.path)
        with run.journal(_STAGE, teacher.classes) as journal:
            measured = self.planned.train(
                teacher, images, decisions, journal, log, file, progress=progress
            )
        network = self.planned.load(file)
        # No distance is searched before the weights are on disk and named in the manifest.
        run.note(
            SURROGATES,
            {
                "queries": self.planned.queries,
                "agreement": None if measured is None else measured[0],
                "held_out": 0 if measured is None else measured[1],
                "why": self.why,
                "weights": weights_fingerprint(network),
            },
        )
        log.empty()  # the weights are stored, so no round is queried again
        return network


def plan_surrogate(
    surrogate: nn.Module | SurrogatePlanner | None,
    teacher: Teacher,
    images: int,
    settings: LabelSettings,
    index: Tensor,
) -> RunSurrogate:
    """Plans the surrogate of a run, and takes its queries from the run's budget.

    Args:
        surrogate: A network, a planner, or None.
        teacher: See `SurrogatePlanner.plan`.
        images: See `SurrogatePlanner.plan`.
        settings: The settings of the run, with its whole budget.
        index: [n] int64, the images to label.

    Raises:
        TypeError: If `surrogate` is something else.
        ValueError: If the run cannot use a surrogate.
    """
    network, planner = network_or_planner(surrogate)
    if planner is None:
        return RunSurrogate(settings, network)
    limits = divide_budget(settings, images, teacher.classes)
    labelled = limits[index]
    decisions = int((limits > 0).sum())
    distances = int((labelled - 1).clamp_min(0).sum())
    planned = planner.plan(teacher, images, len(labelled), settings, decisions + distances)
    if not planned.queries:
        return RunSurrogate(settings, why=planned.why)
    left = distances - planned.queries
    # A budget is divided over all images, including those that are not labelled.
    if len(labelled) < images:
        left = images * (left // len(labelled))
    rest = replace(settings, queries=decisions + left)
    return RunSurrogate(rest, planned=planned, why=planned.why)


def queries_of_surrogate(manifest: Mapping[str, Any]) -> int:
    """The queries that trained a run's own surrogate, on top of those of its labels."""
    return sum(note["queries"] for note in manifest.get(SURROGATES, ()))


def _decide(
    run: RunFolder,
    teacher: Teacher,
    images: NamedImages,
    settings: LabelSettings,
    single_class: SingleClassCheck,
    progress: ProgressListener | bool,
) -> Tensor:
    """Decides the images of a run, which its labelling then need not query again."""
    limits = divide_budget(settings, len(images), teacher.classes)
    noun = plural(input_noun(images.image_shape))
    shown = show_answers(f"deciding the {noun}", int((limits > 0).sum()), noun, progress)
    with shown as on_answers, run.journal(DECISIONS, teacher.classes) as journal:
        decisions, _ = decide_images(
            teacher,
            images,
            limits,
            settings.query_batch_size,
            on_answers,
            journal,
            check=single_class,
        )
    return decisions


def _searched_with(planned: PlannedSurrogate, file: Path, note: Mapping[str, Any]) -> nn.Module:
    """Returns the network that the run has searched with."""
    advice = "restore the file, or start another run in another folder"
    if not file.is_file():
        raise InputError(f"{file}: the weights of the run's surrogate are missing; {advice}")
    network = planned.load(file)
    if weights_fingerprint(network) != note.get("weights"):
        raise InputError(f"{file}: expected the weights that the run began with; {advice}")
    return network
