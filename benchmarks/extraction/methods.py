"""The methods that benchmarks.extraction compares, by name."""

from collections.abc import Callable, Mapping
from functools import partial

import db3kd
from benchmarks.extraction.art_attacks import copycat, knockoff
from benchmarks.extraction.selection import (
    active_selection,
    greedy_k_centre,
    highest_entropy,
    random_selection,
)
from benchmarks.extraction.task import Extracted, Task
from benchmarks.extraction.without_images import dfhl_rs, ideal, uniform_noise
from db3kd.planning import Strategy

Method = Callable[[Task], Extracted]


def distilled(task: Task, *, strategy: Strategy = "auto") -> Extracted:
    """Runs `db3kd.distill`, which continues a run that was stopped."""
    result = db3kd.distill(
        task.teacher,
        task.pool,
        budget=task.budget,
        student=task.student,
        strategy=strategy,
        settings=db3kd.DistillSettings(
            training=db3kd.TrainSettings(steps=task.steps, seed=task.seed, device="cpu")
        ),
        out=task.folder,
        resume=task.folder.exists(),
    )
    facts = {"queries": result.queries, "held_out_agreement": result.agreement}
    return Extracted(result.student, facts)


WITH_IMAGES: Mapping[str, Method] = {
    "random": random_selection,
    "entropy": partial(active_selection, choose=highest_entropy),
    "k-centre": partial(active_selection, choose=greedy_k_centre),
    "ART CopycatCNN": copycat,
    "ART KnockoffNets random": partial(knockoff, strategy="random"),
    "ART KnockoffNets adaptive": partial(knockoff, strategy="adaptive"),
    "ART KnockoffNets adaptive, our training": partial(knockoff, strategy="adaptive", retrain=True),
    "db3kd auto": distilled,
}
"""Methods that choose from images at hand."""

WITHOUT_IMAGES: Mapping[str, Method] = {
    "uniform noise": uniform_noise,
    "IDEAL, as in the paper": partial(ideal, published=True),
    "IDEAL, our training": partial(ideal, published=False),
    "DFHL-RS, as in the paper": partial(dfhl_rs, published=True),
    "DFHL-RS, our training": partial(dfhl_rs, published=False),
    "db3kd zero-shot": distilled,
}
"""Methods that make their images; `auto` is "zero-shot" there."""
