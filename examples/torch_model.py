"""Distils a torch module of your own into a smaller network, and exports the student.

python examples/torch_model.py --out runs/torch-model
"""

from pathlib import Path

import torch
import typer
from torch import nn

import db3kd


class Classifier(nn.Module):
    """The module to imitate. Yours may be any module that maps images to scores or classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 10)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns scores [N, 10] of images [N, 1, 8, 8]."""
        return self.layers(images)


def main(
    out: Path = Path("runs/torch-model"), budget: int = 20_000, steps: int | None = None
) -> None:
    """Trains the teacher, distils it within the budget, and exports the student."""
    images, test = db3kd.load_data("digits"), db3kd.load_data("digits", "test")
    training = db3kd.TrainSettings(steps=min(steps or 1000, 1000), learning_rate=3e-3)
    module = db3kd.train_classifier(Classifier, images, settings=training)

    teacher = db3kd.ModuleTeacher(module, image_shape=(1, 8, 8), classes=10)
    result = db3kd.distill(
        teacher,
        images,
        budget=budget,
        student="lenet5-fifth",
        settings=db3kd.DistillSettings(
            training=db3kd.TrainSettings(steps=steps, schedule="cosine")
        ),
        out=out,
        test=test,
    )
    print(result)
    print("report:", result.report)
    print("student:", db3kd.export_model(out, out / "student.onnx").path)


if __name__ == "__main__":
    typer.run(main)
