"""Pseudo samples from a teacher's decisions (ZSDB3KD, section 4): random images, then moves."""

from collections.abc import Iterator

import torch
from torch import Tensor

from db3kd.boundary import StartingPoints
from db3kd.boundary.sign_opt_settings import MAX_CLASSES
from db3kd.data.files.uint8_pixels import to_float
from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.errors import ArgumentError
from db3kd.models import check_model
from db3kd.progress import Progress, ProgressListener
from db3kd.progress.answers import AnswerCounter
from db3kd.querying.driver import run
from db3kd.querying.ledger import UNLIMITED, Ledger
from db3kd.querying.search import fitting_batch_size
from db3kd.querying.sent_queries import SentQueries, counting
from db3kd.querying.session import AnswerJournal, open_journal
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.run_folder import RunFolder
from db3kd.synthesis.acquisition import collect_actively
from db3kd.synthesis.collection import Collected, CollectionTask, collect
from db3kd.synthesis.moves import move_away
from db3kd.synthesis.settings import STILL_SHARD, SynthesisSettings
from db3kd.synthesis.starts import Starts, make_masks, make_starts
from db3kd.teachers import Teacher
from db3kd.teachers.single_class import check_classes_differ
from db3kd.training.process import check_can_train


def sample_display(
    settings: SynthesisSettings, *, samples_before: int = 0, queries_before: int = 0
) -> Progress:
    """Returns the display of a run, of which an earlier process may have made a part."""
    return Progress(
        settings.samples,
        settings.queries,
        title="making pseudo samples",
        samples_before=samples_before,
        queries_before=queries_before,
    )


class Synthesis:
    """One run of `synthesize`, which yields one chunk at a time.

    Args:
        teacher: The teacher.
        settings: How samples are made.
        progress: Receives the numbers of samples and queries.
        folder: Stores each answer until the shard of its chunk is committed, and supplies known
            answers. Chunks with a shard are skipped.

    Attributes:
        collected: The samples before any move, after `chunks` has started.
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
        shape = tuple(teacher.image_shape)
        if settings.moves.count and teacher.classes > MAX_CLASSES:
            raise ArgumentError(
                "moves",
                f"expected a teacher with at most {MAX_CLASSES:,} classes, got "
                f"{teacher.classes:,}; leave them out",
            )
        self._starts = make_starts(settings.starts, shape, settings.seed)
        # The following raise errors for what cannot work, before anything is paid for.
        if settings.moves.count:
            settings.moves.sign_opt.directions(shape, 0)
        if settings.acquisition is not None:
            make_masks(shape, settings.seed)
            check_model(settings.acquisition.model, shape, teacher.classes)
            check_can_train(settings.acquisition.device)
        self._progress, self._folder = progress, folder
        self._on_answers = AnswerCounter(self._report, self._report_known)
        self._answered = self._known = 0
        self._samples = self._distances = 0
        self._distance_sum = 0.0
        self._found: int | None = None
        self.collected: Collected | None = None

    def chunks(self) -> Iterator[tuple[int, PseudoSamples]]:
        """Yields the number of the first sample and the samples of each shard."""
        with counting() as sent:  # counts nothing in a folder, whose journals count themselves
            yield from self._chunks(sent)

    def _chunks(self, sent: SentQueries) -> Iterator[tuple[int, PseudoSamples]]:
        collected = self.collected = self._collect(sent)
        limits = self._limits(collected)
        starting_points = self._starting_points(collected)
        for position in range(0, len(collected), self.settings.samples_per_shard):
            if self._folder is not None and self._folder.has_shard(position):
                continue
            rows = torch.arange(position, len(collected))[: self.settings.samples_per_shard]
            with open_journal(self._folder, position, self.teacher) as journal:
                chunk = self._chunk(collected, rows, limits[rows], starting_points, journal, sent)
            self._samples += len(chunk)
            known = chunk.distance[chunk.distance.isfinite()].double()
            self._distance_sum += known.sum().item()
            self._distances += len(known)
            self._report(0)
            yield position, chunk

    def _collect(self, sent: SentQueries) -> Collected:
        settings, teacher = self.settings, self.teacher
        limit = min(settings.max_starts + settings.max_mixtures, UNLIMITED)
        ledger = Ledger(torch.tensor([min(limit, settings.queries or limit)]))
        if settings.queries == 0:
            raise ArgumentError("queries", "expected at least 1, to query a random image, got 0")
        shape = tuple(teacher.image_shape)
        task = CollectionTask(
            starts=self._starts,
            image_shape=shape,
            classes=teacher.classes,
            samples=settings.samples,
            held_out=settings.held_out,
            bounds=teacher.bounds,
            seed=settings.seed,
            query_batch_size=fitting_batch_size(settings.query_batch_size, shape),
            budget=ledger,
        )
        if settings.acquisition is not None:
            log = None if self._folder is None else ChoiceLog(self._folder.path)
            search = collect_actively(task, settings.acquisition, log)
        else:
            search = collect(
                task, max_starts=settings.max_starts, max_mixtures=settings.max_mixtures
            )
        with open_journal(self._folder, "starts", self.teacher) as journal:
            collected = run(search, teacher, ledger, self._on_answers, journal, sent)
        self._found = len(collected)
        check_classes_differ(
            teacher,
            torch.arange(teacher.classes).repeat_interleave(collected.found),
            f"{settings.starts} starts",
            "try another distribution of starts, or more of them",
        )
        return collected

    def _limits(self, collected: Collected) -> Tensor:
        """Returns [n] int64, the queries that the moves of each sample may spend."""
        held_out, moves = min(self.settings.held_out, len(collected)), self.settings.moves
        count = len(collected) - held_out
        limit = UNLIMITED if moves.queries_per_sample is None else moves.queries_per_sample
        limits = torch.full((count,), limit if moves.count else 0)
        if self.settings.queries is not None and count:
            share, rest = divmod(max(0, self.settings.queries - collected.queries), count)
            limits = limits.clamp_max(share + (torch.arange(count) < rest).long())
        return torch.cat([limits.new_zeros(held_out), limits])

    def _starting_points(self, collected: Collected) -> StartingPoints | None:
        held_out = self.settings.held_out
        if not self.settings.moves.count or len(collected) <= held_out:
            return None
        rows = torch.arange(held_out, len(collected))
        return StartingPoints(
            _Pool(collected, rows, self._starts, self.teacher.bounds),
            collected.decision[rows],
            self.settings.starting_points,
            seed=self.settings.seed,
        )

    def _chunk(
        self,
        collected: Collected,
        rows: Tensor,
        limits: Tensor,
        starting_points: StartingPoints | None,
        journal: AnswerJournal | None,
        sent: SentQueries,
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
        moved = run(search, teacher, ledger, self._on_answers, journal, sent)
        stopped = (
            (moved.moves < moves.count) & (rows >= self.settings.held_out).to(device)
        ).tolist()
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
            bounds=teacher.bounds,
            classes=teacher.classes,
            snapshots={
                count: (pixels.cpu(), distance.cpu())
                for count, (pixels, distance) in moved.snapshots.items()
            },
        )

    def _report(self, answered: int) -> None:
        self._answered += answered
        if self._progress is None:
            return
        self._progress.update(
            samples=self._samples_done,
            queries=self._answered,
            mean_distance=self._distance_sum / self._distances if self._distances else None,
        )

    def _report_known(self, answered: int) -> None:
        if isinstance(self._progress, Progress):
            self._known += answered
            self._progress.add_known(queries=answered)
        else:
            self._report(answered)

    @property
    def _samples_done(self) -> int:
        """The number of samples that are done: without moves, all that were found."""
        if self.settings.moves.count:
            return self._samples
        if self._found is None:
            return min(self.settings.samples, self._answered + self._known)
        return self._found


class _Pool:
    """Collected images as a source of starting points."""

    def __init__(
        self, collected: Collected, rows: Tensor, starts: Starts, bounds: tuple[float, float]
    ) -> None:
        parts = rows.split(STILL_SHARD)
        self._pixels = torch.cat([collected.pixels(starts, part) for part in parts])
        self._bounds = bounds

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, indices: Tensor) -> Tensor:
        return to_float(self._pixels[indices], self._bounds)
