"""Active acquisition of pseudo samples: students choose the images that the teacher decides next.

Most random images teach a student nothing new. A few small networks, trained on the answers so far,
rank many proposals by how uncertain they are, and the teacher receives the most uncertain ones. A
part of each round is reserved for the proposals that most likely belong to a rare class.
The choice costs no query. (Uncertainty sampling: Lewis and Gale, SIGIR 1994. Copying models by
their answers: Papernot et al., ASIA CCS 2017, and Orekondy et al., CVPR 2019.)
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.images import are_equal
from db3kd.data.image_set import ImageSet
from db3kd.models.networks import build_model
from db3kd.querying.search import UNANSWERED, Search
from db3kd.storage.choice_log import ChoiceLog
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.collection import Collected, CollectionTask
from db3kd.synthesis.proposals import (
    PixelBatch,
    choose_proposals,
    draw_proposals,
    rare_class_counts,
    starts_of,
)
from db3kd.training.row_batches import balanced_rows
from db3kd.training.settings import SGD_DEFAULTS, TrainSettings
from db3kd.training.stable import train_classifier_stably

_MAX_OF_ONE_CLASS = 2048
"""If this many starts are all of one class, the collection ends."""


def collect_actively(
    task: CollectionTask, acquisition: AcquisitionSettings, log: ChoiceLog | None
) -> Search[Collected]:
    """Collects pseudo samples in rounds, and keeps all images that the teacher decides.

    While only one class is known, students have nothing to learn, so the teacher decides starts in
    order. Held-out images do not count as known: no student learns them, and no mix contains them.
    So the held-out images, which are the first ones, are always starts.

    Returns:
        The images and their classes.
    """
    known = PixelBatch(
        torch.empty(0, dtype=torch.int64), torch.empty(0, *task.image_shape, dtype=torch.uint8)
    )
    decisions = torch.empty(0, dtype=torch.int64)
    drawn = 0
    for round_number in range(acquisition.rounds):
        last = acquisition.samples_before(round_number + 1, task.samples)
        count = min(last - len(decisions), int(task.budget.remaining[0]))
        if count < 1:
            continue
        learned = known.pixels[task.held_out :]
        learned_decisions = decisions[task.held_out :]
        one_class = are_equal(learned_decisions)
        mixes = 0 if one_class else count * acquisition.pool // 2
        numbers = range(drawn, drawn + (count if one_class else count * acquisition.pool - mixes))
        drawn = numbers.stop
        chosen = _logged(log, round_number)
        if chosen is None and one_class:
            chosen = starts_of(task.starts, torch.arange(numbers.start, numbers.stop))
        elif chosen is None:
            students = list(_train(task, learned, learned_decisions, acquisition, round_number))
            chosen = choose_proposals(
                draw_proposals(task, learned, learned_decisions, numbers, mixes, round_number),
                students,
                count,
                rare_class_counts(learned_decisions, task.classes, count),
            )
            if log is not None:
                log.save(
                    round_number, {"start": chosen.start.numpy(), "pixels": chosen.pixels.numpy()}
                )
        answers = yield from task.query(chosen.pixels)
        answered = answers != UNANSWERED
        known = PixelBatch.concat([known, chosen.select(answered)])
        decisions = torch.cat([decisions, answers[answered]])
        if len(decisions) >= _MAX_OF_ONE_CLASS and are_equal(decisions):
            break
    return Collected(
        start=known.start,
        decision=decisions,
        stored=known.pixels,
        place=torch.arange(len(decisions)),
        found=torch.bincount(decisions, minlength=task.classes),
        queries=int(task.budget.spent[0]),
    )


def _logged(log: ChoiceLog | None, round_number: int) -> PixelBatch | None:
    """Returns the images that were chosen for a round before the run was interrupted, if any."""
    arrays = None if log is None else log.load(round_number)
    if arrays is None:
        return None
    return PixelBatch(torch.from_numpy(arrays["start"]), torch.from_numpy(arrays["pixels"]))


def _train(
    task: CollectionTask,
    pixels: Tensor,
    decisions: Tensor,
    acquisition: AcquisitionSettings,
    round_number: int,
) -> Iterator[torch.nn.Module]:
    """Yields students of the answers so far."""
    images = ImageSet.from_arrays(pixels.numpy(), name="pseudo samples")
    make = partial(build_model, acquisition.model, task.image_shape, task.classes)
    for student in range(acquisition.students):
        settings = TrainSettings(
            steps=acquisition.steps_for(len(decisions)),
            learning_rate=acquisition.learning_rate,
            schedule="cosine",
            seed=int(np.random.default_rng((task.seed, round_number, student)).integers(2**31)),
            device=acquisition.device,
        ).completed(SGD_DEFAULTS)
        yield train_classifier_stably(
            make, images, decisions, settings, rows=balanced_rows(decisions, 0.5)
        )
