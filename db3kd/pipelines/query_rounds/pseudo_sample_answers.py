"""The images of a distillation without images: pseudo samples, and the teacher's decisions."""

from dataclasses import replace
from pathlib import Path

import torch

from db3kd.answers.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.arguments.arrays import seeded_permutation
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES, load_pseudo_samples
from db3kd.planning import BudgetPlan
from db3kd.progress import ProgressListener
from db3kd.storage.existing_runs import begun_with
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.sample_run import write_samples
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.teachers import Teacher
from db3kd.training.settings import TrainSettings


def pseudo_sample_answers(
    teacher: Teacher,
    plan: BudgetPlan,
    training: TrainSettings,
    path: Path,
    *,
    progress: ProgressListener | bool,
) -> Answers:
    """Makes pseudo samples in a run folder, or the rest of them, and returns their decisions.

    Args:
        teacher: The teacher to query.
        plan: The plan of a run without images.
        training: How the student is trained. If the samples are begun already, only its seed
            must be the same.
        path: The run folder, which need not exist.
        progress: See `db3kd.distill`.
    """
    synthesis = sample_settings(plan, training, path)
    held_out = synthesis.held_out
    write_samples(teacher, synthesis, path, resume=path.exists(), progress=progress)
    samples = load_pseudo_samples(path)
    training_rows = held_out + seeded_permutation(len(samples) - held_out, training.seed)
    order = torch.cat([training_rows, torch.arange(held_out)])
    images = augmentable_images(samples.as_image_set(), order, held_out, training.seed)
    return no_answers(images).add(torch.arange(len(order)) * NUMBERS, samples.decision[order])


def sample_settings(plan: BudgetPlan, training: TrainSettings, path: Path) -> SynthesisSettings:
    """Returns how the pseudo samples of a distillation are made; see `pseudo_sample_answers`."""
    acquisition = acquisition_settings(training)
    return SynthesisSettings.guided(
        samples=plan.pseudo_samples,
        # Held-out samples are reserved first, so no mixed image contains one.
        held_out=plan.measured_on,
        acquisition=replace(acquisition, steps=_begun_steps(path) or acquisition.steps),
        seed=training.seed,
    )


def acquisition_settings(training: TrainSettings) -> AcquisitionSettings:
    """Returns how the students that choose pseudo samples are trained: no longer than the student.

    Args:
        training: How the student is trained; `steps` None if they follow from the answers.
    """
    most = AcquisitionSettings.steps
    return AcquisitionSettings(
        device=training.device,
        steps=most if training.steps is None else min(most, training.steps),
    )


def _begun_steps(path: Path) -> int | None:
    """Returns the training steps with which a run of samples has begun; None if it has not.

    It keeps them, so that it can be resumed with other training settings for the student.

    Args:
        path: The run folder of the samples.
    """
    begun = begun_with(path, PSEUDO_SAMPLES.format).get("synthesis")
    acquisition = begun.get("acquisition") if isinstance(begun, dict) else None
    stored = acquisition.get("steps") if isinstance(acquisition, dict) else None
    return stored if type(stored) is int and stored > 0 else None
