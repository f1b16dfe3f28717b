"""Distils a random forest over a table into a small network.

python examples/tabular_forest.py --out runs/forest
"""

from pathlib import Path

import typer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import db3kd


def main(out: Path = Path("runs/forest"), budget: int = 20_000, steps: int | None = None) -> None:
    """Fits the forest, and distils its decisions for rows that it was not fitted on."""
    table = load_breast_cancer(as_frame=True)
    seen, unseen, classes, _ = train_test_split(table.data, table.target, random_state=0)
    forest = RandomForestClassifier(200, random_state=0).fit(seen, classes)

    # Features say which values are valid in each column, so that every query is a valid row.
    features = db3kd.Features.infer(table.data)
    teacher = db3kd.TabularTeacher(forest, features, class_names=tuple(table.target_names))
    result = db3kd.distill(
        teacher,
        features.encode(unseen),
        budget=budget,
        settings=db3kd.DistillSettings(
            training=db3kd.TrainSettings(steps=steps, schedule="cosine")
        ),
        out=out,
    )
    print(result)

    scores = result.student(features.encode(unseen.head(3)))
    print([table.target_names[number] for number in scores.argmax(1)])


if __name__ == "__main__":
    typer.run(main)
