"""Distils a function with images from folders.

python examples/image_folder.py --out runs/pictures
"""

from pathlib import Path

import numpy as np
import typer
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import db3kd

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_pictures(folder: Path) -> None:
    """Writes folder/train/seven/0012.png and so on, of 16 x 16 pixels, in place of your images."""
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = "test" if number % 5 == 0 else "train"
        path = folder / split / NAMES[digit] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels / 16 * 255).astype(np.uint8)).resize((16, 16)).save(path)


def main(out: Path = Path("runs/pictures"), budget: int = 20_000, steps: int | None = None) -> None:
    """Distils a classifier whose classes are the names of the folders."""
    folder = out.with_name(f"{out.name}-data")
    write_pictures(folder)
    images, test = db3kd.load_data(folder), db3kd.load_data(folder, "test")

    rows = images.read(range(len(images))).flatten(1).numpy()
    neighbours = KNeighborsClassifier(3).fit(rows, images.labels)
    teacher = db3kd.FunctionTeacher(
        neighbours.predict,
        image_shape=images.image_shape,
        classes=10,
        flatten=True,
        class_names=images.class_names,
    )
    result = db3kd.distill(
        teacher,
        images,
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
