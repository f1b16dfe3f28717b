"""The problem that all searches of benchmarks.peers are given: a teacher, pairs and starts."""

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.setting import load_network
from benchmarks.peers.linear_optimum import linear_optimum
from benchmarks.peers.run_surrogate import train_run_surrogate
from benchmarks.peers.whitebox import minimum_norm
from db3kd.boundary import Pairs, StartingPoints, Surrogate
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.models.networks import build_model
from db3kd.synthesis.starts import make_starts
from db3kd.teachers import ModuleTeacher, decide_checked

GENERATED = {"alexnet": (3, 32, 32), "resnet18": (3, 224, 224)}
"""Teachers that get random weights and generated images if there is no weight file."""

NETWORKS = AutoSurrogate.networks
"""The number of networks of a surrogate."""

_CLASSES = 10


@dataclass
class Problem:
    """P pairs of one teacher, as tensors that can be written to a file.

    Attributes:
        kind: The model of the teacher.
        classes: The number of classes.
        state: The weights of the teacher.
        data: The name of the data set.
        samples: [P, *image_shape] float32.
        index: [P] int64, the indices of the samples in their set.
        source: [P] int64, the classes of the samples.
        target: [P] int64, the classes to reach.
        starts: [P, K, *image_shape] float32, images of the target class, the nearest first.
        optimum: [P] float32, the distance that a white-box attack finds.
        exact: [P] float64, the true least distance, if it is known.
        surrogates: Weights of surrogates by the architecture of their networks.
    """

    kind: str
    classes: int
    state: dict[str, Tensor]
    data: str
    samples: Tensor
    index: Tensor
    source: Tensor
    target: Tensor
    starts: Tensor
    optimum: Tensor
    exact: Tensor | None = None
    surrogates: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an image."""
        return tuple(self.samples.shape[1:])

    @property
    def pairs(self) -> Pairs:
        """The pairs as the boundary searches take them."""
        samples = self.samples.flatten(1).contiguous()
        return Pairs(samples, self.index, torch.arange(len(self)), self.target)

    def network(self) -> nn.Module:
        """Builds the network of the teacher."""
        return self._build(self.kind, self.state)

    def surrogate(self, model: str) -> Surrogate:
        """Builds the surrogate whose networks have this architecture."""
        network = self._build(f"{model}*{NETWORKS}", self.surrogates[model])
        return Surrogate(network, self.image_shape, self.classes)

    def teacher(self) -> ModuleTeacher:
        """Builds the teacher."""
        return ModuleTeacher(self.network(), self.image_shape, self.classes)

    def _build(self, model: str, state: dict[str, Tensor]) -> nn.Module:
        network = build_model(model, self.image_shape, self.classes)
        network.load_state_dict(state)
        return network.eval()

    def save(self, path: Path) -> None:
        """Writes the problem to a file."""
        torch.save(asdict(self), path)

    @classmethod
    def load(cls, path: Path) -> "Problem":
        """Reads a problem from a file."""
        return cls(**torch.load(path, weights_only=True))


def make_problem(options: argparse.Namespace) -> Problem:
    """Makes the first pairs of the test split that qualify.

    The teacher's class of a sample has to be its label, if it has one. The target is drawn from the
    other classes with enough images in the candidate pool.
    """
    network, candidate_pool, test = _teacher_and_images(options)
    classes = candidate_pool.classes or _CLASSES
    teacher = ModuleTeacher(network, candidate_pool.image_shape, classes)
    decided = _decide_all(teacher, candidate_pool)
    source = decide_checked(teacher, test.read(range(min(len(test), 20 * options.pairs))))
    fits = source == test.labels[: len(source)] if test.labels is not None else source >= 0
    targets = _draw_targets(decided, source, classes, options)
    chosen = (fits & (targets >= 0)).nonzero()[: options.pairs, 0]
    if len(chosen) < options.pairs:
        raise SystemExit(
            f"--pairs: expected {options.pairs} test images with a target, found {len(chosen)}; "
            "ask for fewer pairs, fewer --starts or a larger --candidate-pool"
        )
    samples, source, targets = test.read(chosen), source[chosen], targets[chosen]
    pairs = Pairs(samples.flatten(1), chosen, torch.arange(len(chosen)), targets)
    rays = StartingPoints(candidate_pool, decided, options.starts).rays(pairs)
    starts = rays.ends[rays.end_of].view(len(chosen), options.starts, *candidate_pool.image_shape)
    optimum = minimum_norm(network, samples, targets, options.white_box_steps, starts[:, 0])
    exact = None
    if options.teacher_model == "linear":
        *_, layer = network.children()
        assert isinstance(layer, nn.Linear)
        exact = linear_optimum(
            layer.weight.detach(), layer.bias.detach(), samples.flatten(1), targets
        )
    return Problem(
        kind=options.teacher_model,
        classes=classes,
        state=network.state_dict(),
        data=candidate_pool.name,
        samples=samples,
        index=chosen,
        source=source,
        target=targets,
        starts=starts,
        optimum=optimum,
        exact=exact,
        surrogates=_surrogates(teacher, candidate_pool, options),
    )


def _surrogates(
    teacher: ModuleTeacher, candidate_pool: ImageSet, options: argparse.Namespace
) -> dict[str, dict[str, Tensor]]:
    """Weights of the surrogates of each architecture asked for, as a label run trains them."""
    if not options.surrogates:
        return {}
    images = candidate_pool.subset(torch.arange(min(options.surrogate_images, len(candidate_pool))))
    decisions = _decide_all(teacher, images)
    states = {}
    for model in options.surrogates:
        made = train_run_surrogate(
            teacher,
            images,
            decisions,
            len(images) * (options.surrogate_queries - 1),
            model=model,
            networks=NETWORKS,
            steps=options.surrogate_steps,
            seed=options.seed + 1,
            per_image=options.surrogate_queries - 1,
        )
        states[model] = made.network.state_dict()
    return states


def _teacher_and_images(options: argparse.Namespace) -> tuple[nn.Module, ImageSet, ImageSet]:
    """The network, the candidate pool, and the images that samples are taken from."""
    kind = options.teacher_model
    if kind in GENERATED and options.teacher is None:
        candidate_pool, test = _generated(GENERATED[kind], options)
        torch.manual_seed(options.seed)
        network = build_model(kind, candidate_pool.image_shape, _CLASSES)
        _calibrate(network, candidate_pool.read(range(min(len(candidate_pool), 128))))
        return network, candidate_pool, test
    train, test = load_data(options.data, "train"), load_data(options.data, "test")
    if options.candidate_pool is not None:
        train = train.subset(torch.arange(min(options.candidate_pool, len(train))))
    if kind == "alexnet" and train.image_shape == (1, 28, 28):
        train, test = _padded(train), _padded(test)
    return load_network(options, train), train, test


def _padded(images: ImageSet) -> ImageSet:
    """Pads grey images of 28 x 28 to the 3 x 32 x 32 that AlexNet-32 takes."""
    pixels = torch.empty(len(images), *GENERATED["alexnet"], dtype=torch.uint8)
    for part in torch.arange(len(images)).split(4096):
        grey = (images.read(part) * 255).round().to(torch.uint8)
        pixels[part] = F.pad(grey, (2, 2, 2, 2)).expand(-1, 3, -1, -1)
    return ImageSet.from_arrays(pixels, images.labels, f"{images.name}-3x32x32", images.classes)


def _generated(shape: tuple[int, ...], options: argparse.Namespace) -> tuple[ImageSet, ImageSet]:
    """Images of random shapes and textures: a candidate pool, and 20 images for each pair."""
    count = options.candidate_pool or 1000
    starts = make_starts("mixed", shape, options.seed)
    candidate_pool = starts.draw(torch.arange(count))
    test = starts.draw(torch.arange(count, count + 20 * options.pairs))
    return ImageSet.from_arrays(candidate_pool, name="generated"), ImageSet.from_arrays(test)


@torch.no_grad()
def _calibrate(network: nn.Module, images: Tensor) -> None:
    """Adjusts random weights, which otherwise put all images in one class or overflow.

    Batch norms take the statistics of these images. Then the scores are standardised over them, so
    that each class is the highest for some images.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.train()
    network(images)
    scores = network.eval()(images)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    mean, spread = scores.mean(0), scores.std(0)
    last.weight /= spread[:, None]
    last.bias.copy_((last.bias - mean) / spread)


def _decide_all(teacher: ModuleTeacher, images: ImageSet) -> Tensor:
    parts = torch.arange(len(images)).split(1024)
    return torch.cat([decide_checked(teacher, images.read(part)) for part in parts])


def _draw_targets(
    decided: Tensor, source: Tensor, classes: int, options: argparse.Namespace
) -> Tensor:
    """A target class for each sample, [n] int64; -1 if there is none.

    If --classes names a source and a target, only samples of that source get that target.
    """
    if options.classes is not None:
        source_class, target = options.classes
        return torch.where(source == source_class, target, -1)
    enough = (torch.bincount(decided, minlength=classes) >= options.starts).nonzero()[:, 0].numpy()
    random = np.random.default_rng(options.seed)
    targets = torch.full_like(source, -1)
    for sample, source_class in enumerate(source.tolist()):
        others = enough[enough != source_class]
        if len(others):
            targets[sample] = int(random.choice(others))
    return targets
