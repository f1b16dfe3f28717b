"""Distils a model without a single image of its kind.

python examples/zero_shot.py --out runs/zero-shot
"""

from pathlib import Path

import typer

import db3kd


def main(
    out: Path = Path("runs/zero-shot"), budget: int = 50_000, steps: int | None = None
) -> None:
    """Trains a teacher on digits, and a student that never sees a digit."""
    images, test = db3kd.load_data("digits"), db3kd.load_data("digits", "test")
    settings = db3kd.TrainSettings(steps=min(steps or 1000, 1000), learning_rate=3e-3)
    network = db3kd.build_model("lenet5", images.image_shape, 10)
    network = db3kd.train_classifier(network, images, settings=settings)
    teacher = db3kd.ModuleTeacher(network, images.image_shape, 10)

    # Without images, db3kd makes pseudo samples. `test` only measures the student, without a query.
    result = db3kd.distill(
        teacher,
        budget=budget,
        settings=db3kd.DistillSettings(
            training=db3kd.TrainSettings(steps=steps, schedule="cosine")
        ),
        out=out,
        test=test,
    )
    print(result)


if __name__ == "__main__":
    typer.run(main)
