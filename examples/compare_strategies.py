"""Compares strategies at the same budget, for your teacher and your images.

python examples/compare_strategies.py --out runs/compare
"""

from pathlib import Path

import typer

import db3kd


def main(
    out: Path = Path("runs/compare"), budget: int = 5_000, steps: int | None = None, seeds: int = 3
) -> None:
    """Trains students with three strategies, and prints a table."""
    images, test = db3kd.load_data("digits"), db3kd.load_data("digits", "test")
    training = db3kd.TrainSettings(steps=min(steps or 1000, 1000), learning_rate=3e-3)
    network = db3kd.build_model("lenet5", images.image_shape, 10)
    network = db3kd.train_classifier(network, images, settings=training)
    teacher = db3kd.ModuleTeacher(network, images.image_shape, 10)

    comparison = db3kd.compare(
        teacher,
        images,
        budget=budget,
        strategies=["decisions", "augmented", "auto"],
        seeds=seeds,
        settings=db3kd.DistillSettings(
            training=db3kd.TrainSettings(steps=steps, schedule="cosine")
        ),
        out=out,
        test=test,
        price_per_1000=1.50,
    )
    print(comparison.table)
    for note in comparison.notes:
        print("-", note)


if __name__ == "__main__":
    typer.run(main)
