"""Surrogates that a run trains itself, on a part of its budget, before it labels.

The run decides its images first. Then it sends the surrogate's queries, and keeps their answers in
a journal like those of any stage. The trained weights are kept in the run's folder before the first
distance is searched, so that a resumed run uses the same ones: training gives the same bits only on
one machine with one number of threads.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.arguments.arrays import seeded_permutation
from db3kd.data.image_source import NamedImages, SelectedImages
from db3kd.data.table_rows import projection_of
from db3kd.errors import InputError
from db3kd.labelling.label_job import LabelJob
from db3kd.labels.labels import SURROGATES
from db3kd.planning.surrogate_plan import SurrogatePlan
from db3kd.progress import Progress, ProgressListener, adding_up, listening, show_progress
from db3kd.progress.answers import show_answers
from db3kd.querying.driver import decide_all
from db3kd.querying.session import AnswerJournal
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.run_folder import RunFolder
from db3kd.surrogates.augmented_decisions import AugmentedDecisions
from db3kd.surrogates.boundary_points import (
    ROUNDS,
    BoundaryPoints,
    collect_boundary_points,
    propose_boundary_points,
)
from db3kd.surrogates.files import save_surrogate
from db3kd.surrogates.queries import HELD_OUT_SHARE, augment_shuffled, decide_versions
from db3kd.surrogates.settings import SurrogateSettings, TrainedSurrogate
from db3kd.surrogates.training import train_surrogate
from db3kd.teachers import ModuleTeacher, Teacher, load_teacher
from db3kd.teachers.fingerprints import weights_fingerprint
from db3kd.wording import input_noun, plural

WEIGHTS = "_surrogate.safetensors"
"""The weights of a run's own surrogate, in its folder."""

_STAGE = "surrogate"
"""The stage in which a surrogate's training images are decided, and the name of its journal."""

_ASKING = "querying for the surrogate"
"""The title of the display while the teacher is queried."""


@dataclass(frozen=True)
class RunSurrogate:
    """The surrogate of one run, from `db3kd.AutoSurrogate.plan`.

    Attributes:
        settings: How it is trained.
        plan: The numbers of images, augmented versions and points, and why; without queries, the
            run trains none.
    """

    settings: SurrogateSettings
    plan: SurrogatePlan

    @property
    def entries(self) -> Mapping[str, Any]:
        """What the queries and the weights depend on, for the run's manifest."""
        training = asdict(self.settings.training)
        for name in ("device", "precision"):  # a run may be resumed on another machine
            training.pop(name)
        return {
            **asdict(self.settings),
            "training": training,
            "samples": self.plan.samples,
            "points": self.plan.points,
            "queries": self.plan.queries,
            "held_out_share": HELD_OUT_SHARE,
        }

    def train_or_load(
        self, run: RunFolder, job: LabelJob, *, progress: ProgressListener | bool
    ) -> nn.Module | None:
        """Returns the network that a run searches with, and trains it if the run has not yet.

        Training queries the teacher, takes minutes, and writes the weights and an entry of the
        manifest.

        Returns:
            The network; None if the run searches without a surrogate.

        Raises:
            TeacherError: If the teacher fails, or puts all images, or the first ones, in one class.
                Paid answers are kept.
            ValueError: If the weights in the folder are not those that the run searched with.
        """
        notes = run.manifest.get(SURROGATES, [])
        if not self.plan.queries:
            if not notes:
                run.note(SURROGATES, {"queries": 0, "why": self.plan.why})
            return None
        teacher, file, log = job.teacher, run.path / WEIGHTS, ChoiceLog(run.path)
        if notes:
            advice = "restore the file, or start another run in another folder"
            if not file.is_file():
                raise InputError(
                    f"{file}: the weights of the run's surrogate are missing; {advice}"
                )
            network = self._load(file, teacher)
            if weights_fingerprint(network) != notes[-1].get("weights"):
                raise InputError(f"{file}: expected the weights that the run began with; {advice}")
            log.empty()  # a kill may have come after the note below
            return network
        decisions = _decide_images(run, job, progress)
        with run.journal(_STAGE, teacher.classes) as journal:
            trained = self.train(teacher, job.images, decisions, journal, log, progress=progress)
        save_surrogate(file, trained.network, self.settings, teacher, job.images)
        network = self._load(file, teacher)
        # No distance is searched before the weights are on disk and named in the manifest.
        run.note(
            SURROGATES,
            {
                "queries": self.plan.queries,
                "agreement": trained.agreement,
                "held_out": trained.held_out,
                "why": self.plan.why,
                "weights": weights_fingerprint(network),
            },
        )
        log.empty()  # the weights are stored, so no round is queried again
        return network

    def train(
        self,
        teacher: Teacher,
        images: NamedImages,
        decisions: Tensor,
        journal: AnswerJournal,
        log: ChoiceLog,
        *,
        progress: ProgressListener | bool,
    ) -> TrainedSurrogate:
        """Asks the teacher and trains the surrogate.

        Args:
            teacher: The teacher of the run.
            images: The images of the run.
            decisions: [N] int64, their classes; -1 for images that the budget refused.
            journal: Keeps the answers, and supplies those that it has.
            log: Keeps the points that networks choose, and supplies those that it has.
            progress: See `db3kd.label`; a listener receives the counts of each stage.
        """
        order = seeded_permutation(len(images), self.settings.training.seed)
        drawn = order[decisions[order] >= 0][: self.plan.samples]
        augmented = augment_shuffled(
            SelectedImages(images, drawn), self.settings, projection_of(teacher, images)
        )
        asked = len(augmented) - len(drawn)
        with show_answers(_ASKING, asked, "queries", progress) as on_answers:
            decided = decide_versions(teacher, augmented, decisions[drawn], journal, on_answers)
        points = collect_boundary_points(
            self.plan.points,
            augmented.image_shape,
            partial(self._propose, decided, teacher.classes, progress),
            partial(_decide_points, teacher, journal, progress),
            log,
        )
        return train_surrogate(decided, teacher.classes, self.settings, progress, points)

    def _load(self, weights: Path, teacher: Teacher) -> nn.Module:
        """Returns the network of a weights file, in eval mode on the CPU."""
        model = self.settings.surrogate_model(tuple(teacher.image_shape))
        loaded = load_teacher(weights, model=model, device="cpu")
        assert isinstance(loaded, ModuleTeacher)  # as any .safetensors file
        return loaded.module

    def _propose(
        self,
        decided: AugmentedDecisions,
        classes: int,
        progress: ProgressListener | bool,
        points: BoundaryPoints,
        count: int,
        round_number: int,
    ) -> Tensor:
        """Trains a network for a part of the steps, and returns points near its boundaries."""
        training, images = self.settings.training, decided.images
        assert training.steps is not None  # `SurrogateSettings` checks it
        short = replace(
            training,
            steps=max(1, training.steps // ROUNDS),
            seed=training.seed + self.settings.networks + round_number,
        )
        one = replace(self.settings, networks=1, training=short)
        title = f"choosing points, round {round_number + 1}"
        with listening(
            progress, lambda: Progress(one.steps, title=title, unit="steps")
        ) as listener:
            network = train_surrogate(decided, classes, one, listener, points).network
        # Held-out samples, which are the last ones, start no pair.
        clean = torch.arange(images.partners) * images.queries_per_sample
        finding = f"finding points, round {round_number + 1}"
        with show_progress(finding, count, "points", progress) as show:
            return propose_boundary_points(
                network,
                SelectedImages(images, clean),
                decided.decisions[clean],
                count,
                classes,
                (training.seed, round_number),
                adding_up(show),
            )


def _decide_images(run: RunFolder, job: LabelJob, progress: ProgressListener | bool) -> Tensor:
    """Decides the images of a run, which its labelling then need not query again."""
    noun = plural(input_noun(job.images.image_shape))
    shown = show_answers(f"deciding the {noun}", int((job.limits > 0).sum()), noun, progress)
    with shown as on_answers:
        decisions, _ = job.decide_images(run, on_answers)
    return decisions


def _decide_points(
    teacher: Teacher, journal: AnswerJournal, progress: ProgressListener | bool, points: Tensor
) -> Tensor:
    with show_answers(_ASKING, len(points), "queries", progress) as on_answers:
        return decide_all(
            teacher,
            lambda rows: points[rows],
            torch.arange(len(points)),
            on_answers=on_answers,
            journal=journal,
        )
