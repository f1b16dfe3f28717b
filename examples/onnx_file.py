"""Distils a model of which you have only an ONNX file.

python examples/onnx_file.py --out runs/onnx
"""

from pathlib import Path

import typer

import db3kd


def write_model(path: Path, steps: int) -> None:
    """Writes an ONNX graph that classifies digits, in place of the file that you were given."""
    images = db3kd.load_data("digits")
    settings = db3kd.TrainSettings(steps=steps, learning_rate=3e-3)
    network = db3kd.build_model("lenet5", images.image_shape, 10)
    network = db3kd.train_classifier(network, images, settings=settings)
    db3kd.export_model(db3kd.ModuleTeacher(network, images.image_shape, 10), path)


def main(out: Path = Path("runs/onnx"), budget: int = 10_000, steps: int | None = None) -> None:
    """Opens the file, and distils it with unlabelled images."""
    model = out.with_suffix(".onnx")
    model.parent.mkdir(parents=True, exist_ok=True)
    write_model(model, min(steps or 1000, 1000))

    teacher = db3kd.load_teacher(model)
    pictures = db3kd.load_data("digits", "test")
    unlabelled = pictures.read(range(len(pictures)))  # [N, 1, 8, 8] float32 in [0, 1]
    result = db3kd.distill(
        teacher,
        unlabelled,
        budget=budget,
        settings=db3kd.DistillSettings(
            training=db3kd.TrainSettings(steps=steps, schedule="cosine")
        ),
        out=out,
    )
    print(result)


if __name__ == "__main__":
    typer.run(main)
