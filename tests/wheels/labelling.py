"""Labels a few images with the db3kd that is installed, and prints a digest of the labels.

The teacher adds its logits up in a fixed order, so the labels have the same bits with every torch.
"""

import hashlib

import numpy
import torch

import db3kd

CLASSES, SIDE = 4, 6


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 1, SIDE, SIDE, generator=generator)
    weights = torch.randn(CLASSES, SIDE * SIDE, generator=generator).double().numpy()

    def classify(batch: numpy.ndarray) -> numpy.ndarray:
        logits = numpy.zeros((len(batch), CLASSES))
        for pixel, values in enumerate(batch.reshape(len(batch), -1).T.astype(numpy.float64)):
            logits += values[:, None] * weights[:, pixel]
        return logits.argmax(1)

    teacher = db3kd.FunctionTeacher(classify, image_shape=(1, SIDE, SIDE), classes=CLASSES)
    settings = db3kd.LabelSettings(queries_per_pair=120)
    labels = db3kd.label(teacher, images, settings, progress=False)
    bits = labels.distances.contiguous().view(torch.uint8).numpy().tobytes()
    digest = hashlib.sha256(bits).hexdigest()[:16]
    print(f"{int(labels.queries.sum())} queries, distances {digest}")


if __name__ == "__main__":
    main()
