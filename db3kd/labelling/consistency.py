"""Whether a teacher gives the same answers again: at a run's start and end, and before resuming.

A few images are asked again whose answers are known. Where a teacher has changed or is noisy, some
answers matter more than others, and the run knows which:

- Before resuming, points of the search that was stopped, halfway between a sample and images of
  other classes, and samples that the data set puts in another class. Two teachers that agree on
  nearly all images disagree on many of these.
- At the end, samples with the least distance to a boundary. A sample whose own answer was wrong is
  surrounded by images in its true class, so its distance is next to nothing.

These queries are asked through journals of their own, counted in the manifest, and change no label.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from db3kd.data.image_source import NamedImages
from db3kd.labelling.chunk_search import Labeller
from db3kd.labelling.label_files import iterate_shards
from db3kd.labelling.labels import Labels
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import UNANSWERED, query_in_batches
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers.base import Teacher, describe

DEFAULT_CHECKS = 32
"""Most queries of all checks of a run, its stops included."""

_BUDGET_SHARE = 100
"""Checks take no more than one query in so many of a run's budget."""

_START = 4
_AROUND = 2
"""Changed answers at the end whose surroundings are asked too, two queries each."""

_SURE = 3
"""So many changed answers at the end need no look at their surroundings."""

_SUSPECTS = 0.1
"""Share of the samples that the end's check draws from: those with the least distances."""

_NEAR = 0.01
"""How far the surroundings of a sample lie, as a share of the bounds' width, in each value."""


def reserved_queries(checks: int, budget: int | None) -> int:
    """What a run's budget sets aside for its checks."""
    return 0 if budget is None else min(checks, budget // _BUDGET_SHARE)


def interval(changed: int, asked: int) -> tuple[float, float]:
    """The exact 95 % interval (Clopper and Pearson) of a share of which `changed` of `asked` were
    seen.
    """

    def tail(share: float, most: int) -> float:
        return sum(
            math.comb(asked, k) * share**k * (1 - share) ** (asked - k) for k in range(most + 1)
        )

    def solve(most: int, level: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle, most) > level else (low, middle)
        return (low + high) / 2

    low = 0.0 if changed == 0 else solve(changed - 1, 0.975)
    high = 1.0 if changed == asked else solve(changed, 0.025)
    return low, high


@dataclass
class ConsistencyChecks:
    """The checks of one run.

    folder: of the run. checks: most queries of all of them. accept_changes: go on with a run
    although its teacher's answers have changed.
    """

    folder: RunFolder
    checks: int = DEFAULT_CHECKS
    accept_changes: bool = False
    _resumed: bool = field(init=False)

    def __post_init__(self) -> None:
        self._resumed = self.folder.has_shards or any(
            self.folder.journals.read(file).calls
            for file in self.folder.journals.files()
            if not file.name.startswith("_check-")
        )

    @property
    def asked(self) -> int:
        """Queries of the checks so far."""
        return queries_of_checks(self.folder.manifest)

    def decided(self, labeller: Labeller, parts: Mapping[int, Tensor]) -> None:
        """Checks a run whose images are decided, or those of them that were when it was stopped.

        labeller: with the decisions. parts: what is left to label, [n] int64 by position.

        Raises:
            ValueError: a run that is resumed has had other answers, and they are not accepted.
        """
        if not self._resumed:
            chosen = _first_suspects(labeller, min(_START, self.checks // 8))
            self._compare("start", labeller, chosen)
            return
        left = self.checks - self.checks // 2 - self.asked
        count = max(0, min(self.checks // 4, (left + 1) // 2))
        if not count:
            self._refuse_as_before(labeller)
            return
        refused = self._last_resume().get("images", {"samples": [], "points": []})
        half = (count if refused["samples"] and not refused["points"] else count + 1) // 2
        points = _points_of_stopped_search(self.folder, labeller, parts, half, refused["points"])
        samples = _first_suspects(
            labeller, count - (0 if points is None else len(points[0])), refused["samples"]
        )
        changed, asked = self._compare("resume", labeller, samples, points)
        if changed and not self.accept_changes:
            raise self._refusal(labeller, changed, asked)

    def _last_resume(self) -> dict[str, Any]:
        """What the last check before resuming found; empty without any."""
        checks = self.folder.manifest.get("consistency", [])
        return next((check for check in checks[::-1] if check["when"] == "resume"), {})

    def _refuse_as_before(self, labeller: Labeller) -> None:
        """Refuses a run without queries left to check it, if the last check refused it."""
        last = self._last_resume()
        if last.get("changed") and not self.accept_changes:
            raise self._refusal(labeller, last["changed"], last["asked"])

    def _refusal(self, labeller: Labeller, changed: int, asked: int) -> ValueError:
        return ValueError(
            f"teacher {describe(labeller.teacher)} changed {changed} of {asked} answers since the "
            f"run in {self.folder.path} was stopped: it was replaced, or is noisy. Begin another "
            "run, or go on and mix the answers with --accept-changed-teacher (accept_changes=True)"
        )

    def end(self, teacher: Teacher, images: NamedImages, measure: str) -> None:
        """Checks a run whose shards are all there, and notes how many of its answers are wrong.

        images: in the order of the run.
        """
        count = self.checks - self.asked - 2 * _AROUND
        suspicion, decisions = _suspicion(self.folder, measure)
        decided = int((decisions != UNANSWERED).sum())
        if count < 1 or not decided:
            return
        order = torch.argsort(suspicion, stable=True)[:decided]
        top = order[: max(1, count // 2)]
        suspects = order[len(top) : max(count, math.ceil(_SUSPECTS * decided))]
        drawn = torch.randperm(len(suspects), generator=torch.Generator().manual_seed(0))
        rest = suspects[drawn[: count - len(top)].sort().values]
        rows = torch.cat([top, rest])
        answers = self._ask(teacher, images.read(rows))
        wrong = answers != decisions[rows]
        changed, of_top = rows[wrong], int(wrong[: len(top)].sum())
        around = self._ask_around(teacher, images, changed[:_AROUND], decisions)
        of_rest = int(wrong.sum()) - of_top
        low, high = interval(of_rest, len(rest)) if len(rest) else (0.0, 0.0)
        share = of_rest / max(1, len(rest))
        self._note(
            "end",
            len(rows),
            len(changed),
            around=2 * min(_AROUND, len(changed)),
            flagged=len(changed) >= _SURE or around,
            rate=(of_top + share * len(suspects)) / decided,
            interval=[(of_top + bound * len(suspects)) / decided for bound in (low, high)],
        )

    def _ask_around(
        self, teacher: Teacher, images: NamedImages, rows: Tensor, decisions: Tensor
    ) -> bool:
        """Whether images on both sides of one of these samples are in another class than it was.

        Where rounding alone changed an answer, the boundary runs through the sample itself, and one
        of two images on opposite sides of it is still in the old class.
        """
        if not len(rows):
            return False
        lower, upper = teacher.bounds
        samples, step = images.read(rows), _NEAR * (upper - lower)
        signs = torch.randint(0, 2, samples.shape, generator=torch.Generator().manual_seed(1))
        room = (samples - lower >= step) & (upper - samples >= step)
        step = torch.where(room, (2 * signs - 1) * step, 0.0)
        answers = self._ask(teacher, torch.cat([samples + step, samples - step]), "around")
        other = answers.view(2, -1) != decisions[rows]
        return bool(other.all(0).any())

    def _compare(
        self,
        when: str,
        labeller: Labeller,
        samples: Tensor,
        points: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[int, int]:
        """How many answers changed, and of how many.

        samples: their numbers, [n] int64. points: of the search, as `_points_of_stopped_search`
        gives them.
        """
        images, expected = labeller.images.read(samples), labeller.decisions[samples]
        numbers = samples
        if points is not None:
            images, expected = torch.cat([images, points[1]]), torch.cat([expected, points[2]])
            numbers = torch.cat([samples, points[0]])
        if not len(expected):
            return 0, 0
        differs = self._ask(labeller.teacher, images) != expected
        changed, mixed = int(differs.sum()), when != "resume" or self.accept_changes
        of_samples = torch.arange(len(numbers)) < len(samples)
        self._note(
            when,
            len(expected),
            changed,
            flagged=changed > 0 and mixed,
            images={
                "samples": numbers[differs & of_samples].tolist(),
                "points": numbers[differs & ~of_samples].tolist(),
            },
        )
        return changed, len(expected)

    def _ask(self, teacher: Teacher, images: Tensor, part: str = "first") -> Tensor:
        """int64 [n]; each answer is kept as those of any search are.

        part: tells what is asked before the next note in the manifest.
        """
        name = f"check-{len(self.folder.manifest.get('consistency', []))}-{part}"
        self._note_lost(name)
        with self.folder.journal(name, teacher.classes) as journal:
            accounts = torch.arange(len(images))
            search = query_in_batches(lambda rows: images[rows], accounts, len(images))
            return run(search, teacher, Ledger(torch.ones_like(accounts)), journal=journal).cpu()

    def _note_lost(self, name: str) -> None:
        """Counts the answers of a check that a kill cut short, which are asked for again."""
        file = self.folder.journals.file(name)
        lost = sum(len(call.answers) for call in self.folder.journals.read(file).calls)
        if lost:
            self._note("lost", lost, 0, flagged=False)
        file.unlink(missing_ok=True)

    def _note(self, when: str, asked: int, changed: int, **found: Any) -> None:
        entry = {"when": when, "asked": asked, "changed": changed, **found}
        self.folder.note("consistency", entry)
        for file in self.folder.path.glob("_check-*.journal"):
            file.unlink()


def queries_of_checks(manifest: Mapping[str, Any]) -> int:
    """What the checks of a run have cost, beside its labels."""
    checks = manifest.get("consistency", ())
    return sum(check["asked"] + check.get("around", 0) for check in checks)


def is_inconsistent(manifest: Mapping[str, Any]) -> bool:
    """Whether a check found that the teacher of a run is noisy, or was replaced."""
    return any(check["flagged"] for check in manifest.get("consistency", ()))


def describe_checks(manifest: Mapping[str, Any]) -> str:
    """What the checks of a run have found, in a sentence; empty without any."""
    checks = [check for check in manifest.get("consistency", ()) if check["when"] != "lost"]
    if not checks:
        return ""
    said = ", ".join(
        f"{check['changed']} of {check['asked']} at the {check['when']}" for check in checks
    )
    text = f"answers that changed when asked again: {said}"
    last = checks[-1]
    if is_inconsistent(manifest) and "rate" in last:
        low, high = last["interval"]
        text += (
            f"; the teacher is noisy or was replaced, and about {last['rate']:.1%} of the run's "
            f"decisions are wrong (95 % interval {low:.1%} to {high:.1%})"
        )
    return text


def _first_suspects(labeller: Labeller, count: int, first: Sequence[int] = ()) -> Tensor:
    """Decided samples to ask again: `first`, then those whose data set says otherwise, then any."""
    decisions, labels = labeller.decisions, labeller.images.labels
    mixed = torch.randperm(len(decisions), generator=torch.Generator().manual_seed(0))
    mixed = mixed[decisions[mixed] != UNANSWERED]
    place = torch.isin(mixed, torch.tensor(first, dtype=torch.int64)).logical_not().long()
    if labels is not None:
        place = 2 * place + (labels[mixed] == decisions[mixed])
    return mixed[torch.argsort(place, stable=True)][: max(0, count)]


def _points_of_stopped_search(
    folder: RunFolder,
    labeller: Labeller,
    parts: Mapping[int, Tensor],
    count: int,
    first: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Numbers of images that began a search which was stopped, the images, and their answers.

    first: numbers that come before others.
    """
    for position, index in parts.items():
        calls = folder.journals.read(folder.journals.file(position)).calls
        if not calls:
            continue
        answers = torch.cat([torch.from_numpy(call.answers.astype("int64")) for call in calls])
        images = labeller.first_query(index)
        known = min(len(images), len(answers))
        evenly = torch.linspace(0, max(0, known - 1), min(count, known)).long().tolist()
        numbers = [number for number in dict.fromkeys([*first, *evenly]) if number < known]
        rows = torch.tensor(numbers[:count], dtype=torch.int64)
        return rows, images[rows.to(images.device)].cpu(), answers[rows]
    return None


def _suspicion(folder: RunFolder, measure: str) -> tuple[Tensor, Tensor]:
    """How likely each sample's decision is wrong, the least number first, and the decisions."""
    scores, decisions = [], []
    for _, labels in iterate_shards(folder.path):
        scores.append(_scores(labels, measure))
        decisions.append(labels.decision)
    return torch.cat(scores), torch.cat(decisions)


def _scores(labels: Labels, measure: str) -> Tensor:
    if measure == "sd":  # which says nothing of the sample's own answer
        known = torch.full((len(labels),), -1) if labels.label is None else labels.label
        score = ((known < 0) | (known == labels.decision)).float()
    else:
        score = labels.distances.masked_fill(~labels.targets, torch.inf).min(1).values
    return score.masked_fill(labels.decision == UNANSWERED, torch.inf).nan_to_num(posinf=3e38)
