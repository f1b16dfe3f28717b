"""Makes soft labels with db3kd, and trains on them in your own PyTorch loop.

python examples/own_training_loop.py --out runs/own-loop
"""

from pathlib import Path

import numpy as np
import torch
import typer
from sklearn.svm import SVC
from torch import nn

import db3kd

EPOCHS = 30


def rows_of(images: db3kd.ImageSet) -> np.ndarray:
    """Returns images as rows of pixels, for scikit-learn."""
    return images.read(range(len(images))).flatten(1).numpy()


def main(
    out: Path = Path("runs/own-loop"), budget: int = 100_000, steps: int | None = None
) -> None:
    """Labels the digits within the budget, and trains a two-layer network."""
    images, test = db3kd.load_data("digits"), db3kd.load_data("digits", "test")
    machine = SVC().fit(rows_of(images), images.labels)
    teacher = db3kd.FunctionTeacher(machine.predict, images.image_shape, classes=10, flatten=True)

    settings = db3kd.LabelSettings(measure="bd", targets=3, queries=budget)
    labels = db3kd.label(teacher, images, settings, out=out, resume=out.exists())
    labels = db3kd.with_soft_labels(labels, scale=4.0, temperature=4.0)

    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    criterion = db3kd.KDLoss(temperature=4.0, alpha=0.5)
    dataset = db3kd.LabelledImages(images, labels)
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True)
    done = 0
    for _ in range(EPOCHS):
        for batch, decisions, soft_labels in loader:
            if done == steps:
                break
            loss = criterion(student(batch), decisions, soft_labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1

    print(f"accuracy on test images: {db3kd.evaluate(student.eval(), test):.1%}")
    decisions = torch.from_numpy(machine.predict(rows_of(test)))
    print(f"agreement with the teacher: {db3kd.agreement(student, test, decisions):.1%}")


if __name__ == "__main__":
    typer.run(main)
