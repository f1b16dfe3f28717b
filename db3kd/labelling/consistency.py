"""Checks that a teacher repeats its answers: at the start and end of a run, and before resuming.

A few images whose answers are known are queried again. If a teacher was replaced or is noisy, some
answers are more likely to change than others, and these are checked first:

- Before resuming: points of the interrupted search, halfway between a sample and images of other
  classes, and samples whose data set label differs from the teacher's class. Two teachers that
  agree on nearly all images disagree on many of these.
- At the end: samples with the smallest distances. If a sample's own decision was wrong, images of
  its true class surround it, and its distance is almost zero.

The checks have their own journals, are counted in the manifest, and change no label.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from db3kd.data.image_source import NamedImages
from db3kd.labelling.check_results import (
    ChangedImages,
    CheckRecord,
    CheckTime,
    checks_of,
    clopper_pearson,
    queries_of_checks,
)
from db3kd.labelling.chunk_search import Labeller
from db3kd.labelling.label_files import iterate_shards
from db3kd.labelling.labels import Labels
from db3kd.labelling.repeated_queries import ask_again, changed_answers_error, record_check
from db3kd.labelling.run_identity import DECISIONS
from db3kd.labelling.settings import Measure
from db3kd.querying.search import UNANSWERED
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_journals import CHECKS
from db3kd.teachers.base import Teacher, TeacherChangedError

DEFAULT_CHECKS = 32
"""Default maximum number of queries for all checks of a run, including its restarts."""

_BUDGET_SHARE = 100
"""Checks use at most one in this many queries of a run's budget."""

_START_QUERIES = 4

_MAX_NEIGHBOURHOODS = 2
"""Changed answers at the end whose neighbourhood is checked too, with two queries each."""

_SUFFICIENT_CHANGES = 3
"""With this many changed answers at the end, the teacher is flagged in any case."""

_SUSPECT_SHARE = 0.1
"""The check at the end draws from this share of the samples, those with the smallest distances."""

_NEIGHBOUR_STEP = 0.01
"""Distance of a neighbour from its sample in each value, as a share of the bounds' width."""


def allowed_checks(checks: int, budget: int | None) -> int:
    """The most queries that checks may send: `checks`, and at most a share of a run's budget.

    They are a part of the budget. Without one, they come on top of what the samples may spend.
    """
    return checks if budget is None else min(checks, budget // _BUDGET_SHARE)


@dataclass(frozen=True)
class _Points:
    """Images from the beginning of an interrupted search.

    Attributes:
        numbers: `[k] int64`, their positions among the first images of the search.
        images: `[k, *image_shape] float32`.
        answers: `[k] int64`, the teacher's answers before the stop.
    """

    numbers: Tensor
    images: Tensor
    answers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass
class ConsistencyChecks:
    """The checks of one run.

    Attributes:
        folder: The folder of the run.
        checks: Maximum number of queries of all checks.
        accept_changed_teacher: Whether to resume the run even if its teacher's answers have
            changed.
    """

    folder: RunFolder
    checks: int = DEFAULT_CHECKS
    accept_changed_teacher: bool = False
    _resumed: bool = field(init=False)

    def __post_init__(self) -> None:
        self._resumed = self.folder.has_shards or any(
            self.folder.journals.read(file).calls
            for file in self.folder.journals.files()
            if not file.name.startswith(CHECKS)
        )

    @property
    def asked(self) -> int:
        """The queries of the checks so far."""
        return queries_of_checks(self.folder.manifest)

    def decisions_so_far(self) -> Tensor:
        """The decisions that the run has, `[n] int64`, in the order in which they were asked."""
        journals = self.folder.journals
        return torch.from_numpy(journals.answers_in(journals.file(DECISIONS)))

    def begin(self, labeller: Labeller, chunks: Mapping[int, Tensor]) -> None:
        """Checks a run before its search, after all or some of its images are decided.

        Args:
            labeller: The labeller, with the decisions.
            chunks: `[n] int64`, the samples of each remaining chunk, keyed by position.

        Raises:
            TeacherChangedError: If answers have changed since the run was stopped, and
                `accept_changed_teacher` is False.
        """
        if not self._resumed:
            chosen = _suspect_samples(labeller, min(_START_QUERIES, self.checks // 8))
            self._compare("start", labeller, chosen)
            return
        left = self.checks - self.checks // 2 - self.asked
        count = max(0, min(self.checks // 4, (left + 1) // 2))
        if not count:
            self._refuse_again(labeller)
            return
        last = self._last_resume()
        refused = ChangedImages([], []) if last is None or last.images is None else last.images
        half = (count if refused.samples and not refused.points else count + 1) // 2
        points = _stopped_search_points(self.folder, labeller, chunks, half, refused.points)
        samples = _suspect_samples(
            labeller, count - (0 if points is None else len(points)), refused.samples
        )
        changed, asked = self._compare("resume", labeller, samples, points)
        if changed and not self.accept_changed_teacher:
            raise self._refusal(labeller, changed, asked)

    def end(self, teacher: Teacher, images: NamedImages, measure: Measure) -> None:
        """Checks a run whose shards are complete, and estimates its share of wrong decisions.

        Args:
            teacher: The teacher of the run.
            images: The images, in the order of the run.
            measure: The measure of the run.
        """
        count = self.checks - self.asked - 2 * _MAX_NEIGHBOURHOODS
        suspicion, decisions = _suspicion(self.folder, measure)
        decided = int((decisions != UNANSWERED).sum())
        if count < 1 or not decided:
            return
        order = torch.argsort(suspicion, stable=True)[:decided]
        top = order[: max(1, count // 2)]
        suspects = order[len(top) : max(count, math.ceil(_SUSPECT_SHARE * decided))]
        drawn = torch.randperm(len(suspects), generator=torch.Generator().manual_seed(0))
        rest = suspects[drawn[: count - len(top)].sort().values]
        rows = torch.cat([top, rest])
        answers = ask_again(self.folder, teacher, images.read(rows))
        wrong = answers != decisions[rows]
        changed, wrong_in_top = rows[wrong], int(wrong[: len(top)].sum())
        around = self._neighbours_changed(teacher, images, changed[:_MAX_NEIGHBOURHOODS], decisions)
        wrong_in_rest = int(wrong.sum()) - wrong_in_top
        low, high = clopper_pearson(wrong_in_rest, len(rest)) if len(rest) else (0.0, 0.0)
        share = wrong_in_rest / max(1, len(rest))
        record_check(
            self.folder,
            CheckRecord(
                when="end",
                asked=len(rows),
                changed=len(changed),
                around=2 * min(_MAX_NEIGHBOURHOODS, len(changed)),
                flagged=len(changed) >= _SUFFICIENT_CHANGES or around,
                rate=(wrong_in_top + share * len(suspects)) / decided,
                interval=(
                    (wrong_in_top + low * len(suspects)) / decided,
                    (wrong_in_top + high * len(suspects)) / decided,
                ),
            ),
        )

    def _last_resume(self) -> CheckRecord | None:
        """The record of the last check before resuming; None if there was none."""
        checks = checks_of(self.folder.manifest)
        return next((check for check in checks[::-1] if check.when == "resume"), None)

    def _refuse_again(self, labeller: Labeller) -> None:
        """Refuses a run that the last check refused if no queries are left to repeat the check."""
        last = self._last_resume()
        if last is not None and last.changed and not self.accept_changed_teacher:
            raise self._refusal(labeller, last.changed, last.asked)

    def _refusal(self, labeller: Labeller, changed: int, asked: int) -> TeacherChangedError:
        return changed_answers_error(self.folder, labeller.teacher, changed, asked)

    def _neighbours_changed(
        self, teacher: Teacher, images: NamedImages, rows: Tensor, decisions: Tensor
    ) -> bool:
        """Whether two neighbours of a sample, on opposite sides, both left the sample's class.

        If rounding alone changed an answer, the boundary runs through the sample itself, and one
        of two images on opposite sides of it is still in the old class.
        """
        if not len(rows):
            return False
        lower, upper = teacher.bounds
        samples, length = images.read(rows), _NEIGHBOUR_STEP * (upper - lower)
        signs = torch.randint(0, 2, samples.shape, generator=torch.Generator().manual_seed(1))
        inside = (samples - lower >= length) & (upper - samples >= length)
        step = torch.where(inside, (2 * signs - 1) * length, 0.0)
        answers = ask_again(
            self.folder, teacher, torch.cat([samples + step, samples - step]), "around"
        )
        other = answers.view(2, -1) != decisions[rows]
        return bool(other.all(0).any())

    def _compare(
        self, when: CheckTime, labeller: Labeller, samples: Tensor, points: _Points | None = None
    ) -> tuple[int, int]:
        """Queries samples `[n] int64` and points again; returns the changed and asked counts."""
        images, expected = labeller.images.read(samples), labeller.decisions[samples]
        numbers = samples
        if points is not None:
            images = torch.cat([images, points.images])
            expected = torch.cat([expected, points.answers])
            numbers = torch.cat([samples, points.numbers])
        if not len(expected):
            return 0, 0
        differs = ask_again(self.folder, labeller.teacher, images) != expected
        changed, accepted = int(differs.sum()), when != "resume" or self.accept_changed_teacher
        of_samples = torch.arange(len(numbers)) < len(samples)
        record_check(
            self.folder,
            CheckRecord(
                when=when,
                asked=len(expected),
                changed=changed,
                flagged=changed > 0 and accepted,
                images=ChangedImages(
                    samples=numbers[differs & of_samples].tolist(),
                    points=numbers[differs & ~of_samples].tolist(),
                ),
            ),
        )
        return changed, len(expected)


def _suspect_samples(labeller: Labeller, count: int, first: Sequence[int] = ()) -> Tensor:
    """Picks decided samples to query again.

    The samples in `first` come first, then samples whose data set label differs from the decision,
    then random ones.
    """
    decisions, labels = labeller.decisions, labeller.images.labels
    shuffled = torch.randperm(len(decisions), generator=torch.Generator().manual_seed(0))
    shuffled = shuffled[decisions[shuffled] != UNANSWERED]
    rank = torch.isin(shuffled, torch.tensor(first, dtype=torch.int64)).logical_not().long()
    if labels is not None:
        rank = 2 * rank + (labels[shuffled] == decisions[shuffled])
    return shuffled[torch.argsort(rank, stable=True)][: max(0, count)]


def _stopped_search_points(
    folder: RunFolder,
    labeller: Labeller,
    chunks: Mapping[int, Tensor],
    count: int,
    first: Sequence[int] = (),
) -> _Points | None:
    """Picks up to `count` images from the beginning of an interrupted search.

    The numbers in `first` come first, then evenly spaced numbers.
    """
    for position, index in chunks.items():
        answers = torch.from_numpy(folder.journals.answers_in(folder.journals.file(position)))
        if not len(answers):
            continue
        images = labeller.first_query(index)
        known = min(len(images), len(answers))
        evenly = torch.linspace(0, max(0, known - 1), min(count, known)).long().tolist()
        numbers = [number for number in dict.fromkeys([*first, *evenly]) if number < known]
        rows = torch.tensor(numbers[:count], dtype=torch.int64)
        return _Points(rows, images[rows.to(images.device)].cpu(), answers[rows])
    return None


def _suspicion(folder: RunFolder, measure: Measure) -> tuple[Tensor, Tensor]:
    """Returns a score per sample, small if its decision may be wrong, and the decisions."""
    scores, decisions = [], []
    for _, labels in iterate_shards(folder.path):
        scores.append(_scores(labels, measure))
        decisions.append(labels.decision)
    return torch.cat(scores), torch.cat(decisions)


def _scores(labels: Labels, measure: Measure) -> Tensor:
    if measure == "sd":  # sample distances do not depend on the sample's own decision
        known = torch.full((len(labels),), -1) if labels.label is None else labels.label
        score = ((known < 0) | (known == labels.decision)).float()
    else:
        score = labels.distances.masked_fill(~labels.targets, torch.inf).min(1).values
    return score.masked_fill(labels.decision == UNANSWERED, torch.inf).nan_to_num(posinf=3e38)
