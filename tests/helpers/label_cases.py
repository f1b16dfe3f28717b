"""Labels with every attribute, for tests that need some."""

import torch

from db3kd.labels.labels import STATUSES, Labels


def some_labels(n: int = 4, classes: int = 3, *, first: int = 0, optional: bool = True) -> Labels:
    generator = torch.Generator().manual_seed(first)
    distances = torch.rand(n, classes, generator=generator)
    distances[:, -1] = torch.inf
    return Labels(
        index=torch.arange(first, first + n),
        decision=torch.arange(n) % classes,
        distances=distances,
        queries=torch.randint(0, 5000, (n, classes), generator=generator),
        status=[STATUSES[row % len(STATUSES)] for row in range(n)],
        label=torch.arange(n) % classes - 1,
        snapshots={1000: distances * 2, 500: distances * 3} if optional else {},
        soft_labels=distances.nan_to_num(posinf=0).softmax(1) if optional else None,
        searched=distances > 0.5 if optional else None,
        soft_label_temperature=4.0 if optional else None,
    )
