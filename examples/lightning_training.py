"""Makes soft labels with db3kd, and trains on them with Lightning (`pip install lightning`).

python examples/lightning_training.py --out runs/lightning
"""

from pathlib import Path

import lightning
import numpy as np
import torch
import typer
from sklearn.svm import SVC
from torch import Tensor, nn

import db3kd


class Student(lightning.LightningModule):
    """A student that learns decisions and soft labels."""

    def __init__(self) -> None:
        super().__init__()
        self.network = db3kd.build_model("lenet5-fifth", (1, 8, 8), 10)
        self.criterion = db3kd.KDLoss(temperature=4.0, alpha=0.5)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], number: int) -> Tensor:
        """Returns the loss of a batch of `db3kd.LabelledImages`."""
        images, decisions, soft_labels = batch
        loss: Tensor = self.criterion(self.network(images), decisions, soft_labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def student_of(images: db3kd.ImageSet, labels: db3kd.Labels, folder: Path, steps: int) -> nn.Module:
    """Trains the student with Lightning's Trainer."""
    dataset = db3kd.LabelledImages(images, labels)
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True)
    module = Student()
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="auto",
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
    )
    trainer.fit(module, loader)
    return module.network.eval()


def rows_of(images: db3kd.ImageSet) -> np.ndarray:
    """Returns images as rows of pixels, for scikit-learn."""
    return images.read(range(len(images))).flatten(1).numpy()


def main(
    out: Path = Path("runs/lightning"), budget: int = 100_000, steps: int | None = None
) -> None:
    """Labels the digits within the budget, and trains the student."""
    images, test = db3kd.load_data("digits"), db3kd.load_data("digits", "test")
    machine = SVC().fit(rows_of(images), images.labels)
    teacher = db3kd.FunctionTeacher(machine.predict, images.image_shape, classes=10, flatten=True)
    settings = db3kd.LabelSettings(measure="bd", targets=3, queries=budget)
    labels = db3kd.label(teacher, images, settings, out=out, resume=out.exists())
    labels = db3kd.with_soft_labels(labels, scale=4.0, temperature=4.0)

    student = student_of(images, labels, out.parent, steps or 700)
    decisions = torch.from_numpy(machine.predict(rows_of(test)))
    print(f"agreement with the teacher: {db3kd.agreement(student, test, decisions):.1%}")


if __name__ == "__main__":
    typer.run(main)
