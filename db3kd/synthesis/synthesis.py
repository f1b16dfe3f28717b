"""Pseudo samples from a teacher's decisions alone (ZSDB3KD, section 4): starts, then moves."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from db3kd.boundary import StartingPoints
from db3kd.data.arguments import as_teacher
from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.data.uint8_pixels import to_float
from db3kd.models.networks import check_model
from db3kd.progress import ProgressListener
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import fitting_batch_size
from db3kd.storage.journal import Journal
from db3kd.storage.run_folder import RunFolder
from db3kd.synthesis.acquisition import AcquisitionSettings, collect_actively
from db3kd.synthesis.acquisition_log import FolderAcquisitionLog
from db3kd.synthesis.collection import Collected, collect
from db3kd.synthesis.moves import Moves, move_away
from db3kd.synthesis.starts import STARTS, Starts, make_masks, make_starts
from db3kd.teachers.base import Teacher, TeacherError, describe
from db3kd.validation import check_count

_STILL, _MOVED = 4096, 256
"""Samples a chunk, and a shard: those that are moved hold a search's state."""

_UNLIMITED = 2**40
"""More queries than the moves of a sample can take."""


@dataclass(frozen=True)
class SynthesisSettings:
    """How pseudo samples are made and what that may cost.

    samples: wanted, spread over the classes as evenly as what is found allows.
    starts: the distribution they start from, one of `STARTS`.
    effort: most starts asked, as a multiple of `samples`. At 1 every start is kept; with more,
        starts of common classes give way to those of rare ones.
    acquisition: how students of the answers so far choose what to ask; None to ask about starts as
        they come. With a guide all that is asked is kept, and `effort` and `masked_mixes` have no
        part.
    masked_mixes: most queries on classes that starts hardly reach, as a multiple of `samples`.
    moves: away from the boundary; none by default, for they do not earn their queries (see
        docs/zero-shot.md).
    starting_points: images of other classes that the first rays of a moved sample lead to.
    queries: most queries of the whole run. Starts come first; what they leave is divided evenly
        over the moved samples.
    snapshots: numbers of moves after which images and distances are noted as well.
    seed: of everything random.
    query_batch_size: images in one batch of queries; fewer if these would take over 256 MiB.
    """

    samples: int = 20_000
    starts: str = "mixed"
    effort: float = 1.0
    acquisition: AcquisitionSettings | None = None
    masked_mixes: float = 0.1
    moves: Moves = field(default_factory=Moves)
    starting_points: int = 10
    queries: int | None = None
    snapshots: tuple[int, ...] = ()
    seed: int = 0
    query_batch_size: int = 2048

    def __post_init__(self) -> None:
        check_count(self.samples, "samples")
        check_count(self.starting_points, "starting_points")
        check_count(self.query_batch_size, "query_batch_size")
        if self.starts not in STARTS:
            raise ValueError(f"starts: expected one of {', '.join(STARTS)}, got {self.starts!r}")
        if not (self.effort >= 1 and math.isfinite(self.effort)):
            raise ValueError(f"effort: expected a number of at least 1, got {self.effort}")
        if self.acquisition is not None and self.effort != 1:
            raise ValueError(f"effort: expected 1 with acquisition, got {self.effort}")
        if not (self.masked_mixes >= 0 and math.isfinite(self.masked_mixes)):
            raise ValueError(
                f"masked_mixes: expected a number of at least 0, got {self.masked_mixes}"
            )
        if self.queries is not None:
            check_count(self.queries, "queries", least=0)
        for count in self.snapshots:
            check_count(count, "snapshots", least=0)

    @classmethod
    def paper(cls, **changes: object) -> "SynthesisSettings":
        """The settings of the paper's MNIST experiment (ZSDB3KD, section 5), as far as they carry
        over: 8,000 samples of each of 10 classes from noise, 40 moves of up to 5,000 queries each.
        """
        settings = cls(
            samples=80_000,
            starts="paper",
            effort=1000.0,
            moves=Moves.paper(),
        )
        return replace(settings, **changes)

    @classmethod
    def guided(cls, model: str = "lenet5-half", **changes: object) -> "SynthesisSettings":
        """What does best per query: students of that model choose (see docs/zero-shot.md)."""
        return replace(cls(samples=100_000, acquisition=AcquisitionSettings(model)), **changes)

    @property
    def max_starts(self) -> int:
        """Starts asked at most, whatever the budget."""
        return round(self.samples * self.effort)

    @property
    def max_masked_mixes(self) -> int:
        """Crossings asked at most, whatever the budget."""
        return round(self.samples * self.masked_mixes)

    @property
    def samples_per_shard(self) -> int:
        """Samples that are moved, and committed, together."""
        return _MOVED if self.moves.count else _STILL


def synthesize(
    teacher: Teacher,
    settings: SynthesisSettings | None = None,
    *,
    progress: ProgressListener | None = None,
) -> PseudoSamples:
    """Makes pseudo samples for a teacher of which nothing is known but its decisions.

    All of it is in memory, and lost with an error. `db3kd.write_pseudo_samples` keeps each answer
    in a run folder and resumes it, and `db3kd.load_pseudo_samples` reads that.

    A sample depends on (seed, its number, teacher, settings) alone. A class that no image was found
    for has no samples, which holds up no other.

    Raises TeacherError where the teacher fails, or puts all starts in one class: then there is no
    boundary. ValueError where no query was left, or for starts that need images in rows and columns
    where the teacher's have none.
    """
    synthesis = Synthesis(as_teacher(teacher), settings or SynthesisSettings(), progress=progress)
    return PseudoSamples.concat([chunk for _, chunk in synthesis.chunks()])


class Synthesis:
    """One run of `synthesize`, a chunk at a time.

    folder: keeps each answer until the shard of its chunk is committed, and gives those it has;
    chunks that have a shard are left out.
    """

    def __init__(
        self,
        teacher: Teacher,
        settings: SynthesisSettings,
        *,
        progress: ProgressListener | None = None,
        folder: RunFolder | None = None,
    ) -> None:
        self.teacher, self.settings = teacher, settings
        self._starts = make_starts(settings.starts, tuple(teacher.image_shape), settings.seed)
        if settings.acquisition is not None:
            # Either refuses what does not fit, before anything is paid for.
            make_masks(tuple(teacher.image_shape), settings.seed)
            check_model(settings.acquisition.model, tuple(teacher.image_shape), teacher.classes)
        self._progress, self._folder = progress, folder
        self._answered = 0
        self._samples = 0
        self.collected: Collected | None = None
        """What the starts came to, once `chunks` has begun."""

    def chunks(self) -> Iterator[tuple[int, PseudoSamples]]:
        """`settings.samples_per_shard` samples at a time, and the number of the first of them."""
        collected = self.collected = self._collect()
        limits = self._limits(collected)
        starting_points = self._candidates(collected)
        for position in range(0, len(collected), self.settings.samples_per_shard):
            if self._folder is not None and self._folder.has_shard(position):
                continue
            rows = torch.arange(position, len(collected))[: self.settings.samples_per_shard]
            with self._journal(position) as journal:
                chunk = self._chunk(collected, rows, limits[rows], starting_points, journal)
            self._samples += len(chunk)
            self._report(0, chunk.distance)
            yield position, chunk

    def _collect(self) -> Collected:
        settings, teacher = self.settings, self.teacher
        limit = settings.max_starts + settings.max_masked_mixes
        ledger = Ledger(torch.tensor([min(limit, settings.queries or limit)]))
        if settings.queries == 0:
            raise ValueError("queries: expected at least 1 to ask about a start, got 0")
        options = {
            "bounds": teacher.bounds,
            "seed": settings.seed,
            "query_batch_size": fitting_batch_size(settings.query_batch_size, teacher.image_shape),
            "budget": ledger,
        }
        if settings.acquisition is not None:
            search = collect_actively(
                self._starts,
                tuple(teacher.image_shape),
                teacher.classes,
                settings.samples,
                settings.acquisition,
                log=None if self._folder is None else FolderAcquisitionLog(self._folder.path),
                **options,
            )
        else:
            search = collect(
                self._starts,
                teacher.classes,
                settings.samples,
                max_starts=settings.max_starts,
                max_masked_mixes=settings.max_masked_mixes,
                **options,
            )
        with self._journal("starts") as journal:
            collected = run(search, teacher, ledger, self._report, journal)
        reached = (collected.found > 0).nonzero()[:, 0].tolist()
        if len(reached) < 2 and collected.queries > 1:
            raise TeacherError(
                f"teacher {describe(teacher)} put all {collected.queries:,} {settings.starts} "
                f"starts in class {reached[0]}: expected at least two classes, there is no "
                "boundary to go by; try other starts, or more of them"
            )
        return collected

    def _limits(self, collected: Collected) -> Tensor:
        """int64 [n], what the moves of each sample may spend."""
        count, moves = len(collected), self.settings.moves
        most = _UNLIMITED if moves.queries_per_sample is None else moves.queries_per_sample
        limits = torch.full((count,), most if moves.count else 0)
        if self.settings.queries is not None and count:
            share, rest = divmod(max(0, self.settings.queries - collected.queries), count)
            limits = limits.clamp_max(share + (torch.arange(count) < rest).long())
        return limits

    def _candidates(self, collected: Collected) -> StartingPoints | None:
        if not self.settings.moves.count:
            return None
        return StartingPoints(
            _Pool(collected, self._starts, self.teacher.bounds),
            collected.decision,
            self.settings.starting_points,
            seed=self.settings.seed,
        )

    def _chunk(
        self,
        collected: Collected,
        rows: Tensor,
        limits: Tensor,
        starting_points: StartingPoints | None,
        journal: Journal | None,
    ) -> PseudoSamples:
        teacher, moves = self.teacher, self.settings.moves
        device = teacher.device
        ledger = Ledger(limits.to(device))
        search = move_away(
            collected.pixels(self._starts, rows).to(device),
            rows.to(device),
            collected.decision[rows].to(device),
            moves,
            starting_points=starting_points,
            bounds=teacher.bounds,
            seed=self.settings.seed,
            query_batch_size=fitting_batch_size(
                self.settings.query_batch_size, self.teacher.image_shape
            ),
            budget=ledger,
            snapshots=self.settings.snapshots,
        )
        moved = run(search, teacher, ledger, self._report, journal)
        stopped = (moved.moves < moves.count).tolist()
        spent_out = (ledger.remaining == 0).tolist()
        return PseudoSamples(
            pixels=moved.pixels.cpu(),
            decision=collected.decision[rows],
            start=collected.start[rows],
            moves=moved.moves.cpu(),
            distance=moved.distance.cpu(),
            queries=ledger.spent.cpu(),
            status=[
                "ok" if not early else "budget" if out else "stuck"
                for early, out in zip(stopped, spent_out, strict=True)
            ],
            bounds=tuple(teacher.bounds),
            classes=teacher.classes,
            snapshots={
                count: (pixels.cpu(), distance.cpu())
                for count, (pixels, distance) in moved.snapshots.items()
            },
        )

    def _journal(self, of: int | str) -> AbstractContextManager[Journal | None]:
        if self._folder is None:
            return nullcontext()
        return self._folder.journal(of, self.teacher.classes)

    def _report(self, answered: int, distance: Tensor | None = None) -> None:
        self._answered += answered
        if self._progress is None:
            return
        known = torch.empty(0) if distance is None else distance[distance.isfinite()]
        self._progress.update(
            samples=self._samples,
            queries=self._answered,
            mean_distance=known.mean().item() if len(known) else None,
        )


class _Pool:
    """The images that were collected, as a source for candidates."""

    def __init__(self, collected: Collected, starts: Starts, bounds: tuple[float, float]) -> None:
        everything = torch.arange(len(collected)).split(_STILL)
        self._levels = torch.cat([collected.pixels(starts, rows) for rows in everything])
        self._bounds = bounds

    def __len__(self) -> int:
        return len(self._levels)

    def read(self, indices: Tensor) -> Tensor:
        return to_float(self._levels[indices], self._bounds)
