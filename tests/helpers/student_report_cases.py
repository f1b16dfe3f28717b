"""Reports of students to write and to look at: few and many classes, images and features."""

from dataclasses import replace

import torch
from sklearn.datasets import load_digits, load_wine

from db3kd.report import Disagreements, PlanChoice, ReportStage, SoftExamples, StudentReport
from db3kd.tables import Features

HOSTILE = (
    "</td><script>console.error('name')</script>",
    "<img src=x onerror=console.error('image')>",
    "$\\frac$ | `code` **bold** [link](http://example.com)",
    "not UTF-8: \udc80, control: \x00\x1b, right to left: \u202eevil\u202c",
    "x" * 3000,
    "日本語 \N{DROMEDARY CAMEL} عربى",
    "{{ report }} {% raw %}",
    " \n ",
)
"""Names that a page must show as text."""


def confusion_of(classes: int, total: int, share: float, skewed: bool = False) -> torch.Tensor:
    """Returns [C, C] counts of `total` images, about `share` of them on the diagonal.

    The last class is never the teacher's.
    """
    random = torch.Generator().manual_seed(classes)
    weights = 1 / torch.arange(1.0, classes) if skewed else torch.ones(classes - 1)
    teacher = weights.multinomial(total, replacement=True, generator=random)
    other = torch.randint(classes, (total,), generator=random)
    near = (teacher + 1) % classes
    other = torch.where(torch.rand(total, generator=random) < 0.5, other, near)
    student = torch.where(torch.rand(total, generator=random) < share, teacher, other)
    counts = torch.bincount(teacher * classes + student, minlength=classes * classes)
    return counts.reshape(classes, classes)


def digits_report() -> StudentReport:
    """Ten classes of grey images, with every section."""
    images = torch.as_tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
    random = torch.Generator().manual_seed(0)
    confusion = confusion_of(10, 700, 0.93)
    missed = confusion.clone().fill_diagonal_(0).nonzero()[:24]
    logits = 4 * torch.randn(8, 10, generator=random)
    return StudentReport(
        title="Digits of lenet5 for lenet5-fifth",
        teacher="lenet5, weights/digits.safetensors",
        student="lenet5-fifth (12,014 parameters)",
        data="digits: 1,000 grey images, 8x8",
        strategy="auto",
        agreement=(int(confusion.trace()), 700),
        accuracy=(8793, 10_000),
        test_agreement=(9256, 10_000),
        price_per_1000=0.25,
        stages=(
            ReportStage(
                "held-out decisions",
                "700 images, without change",
                "to measure agreement, and to choose by it",
                700,
                3.2,
            ),
            ReportStage("decisions", "300 images", "training", 300, 1.1),
            ReportStage(
                "augmented decisions",
                "199,000 mixed images in 4 rounds",
                "the proxies disagree most about them",
                199_000,
                1263.0,
            ),
            ReportStage("training", "", "the student learns from 2 proxies", 0, 418.0),
        ),
        curve=[(1_000, 0.801), (50_000, 0.884), (100_000, 0.913), (200_000, 0.930)],
        choices=(
            PlanChoice("learning rate", "0.003", {"0.001": 0.917, "0.003": 0.931}),
            PlanChoice("proxies", "2", {"none": 0.911, "2": 0.931, "4": 0.929}),
            PlanChoice("soft labels", "none", {"none": 0.931, "BD": 0.930, "MBD": None}),
        ),
        class_counts=torch.tensor([19, 24, 23, 15, 24, 15, 20, 13, 22, 25]) * 1000,
        confusion=confusion,
        disagreements=Disagreements(images[:24], missed[:, 0], missed[:, 1]),
        soft_examples=SoftExamples(images[30:38], logits.softmax(1)),
        reproduce={
            "command": "db3kd distill --teacher weights/digits.safetensors --data digits --budget "
            "200000 --student lenet5-fifth --seed 0 --out runs/digits",
            "Python": 'result = db3kd.distill(\n    teacher, "digits", student="lenet5-fifth",\n'
            '    budget=200_000, seed=0, out="runs/digits",\n)',
            "db3kd": "0.1.0",
            "torch": "2.13.0",
            "seed": "0",
            "teacher fingerprint": f"sha256:{'8f2c41d0' * 8}",
            "data fingerprint": f"sha256:{'0d6e4079' * 8}",
        },
        notes=("The budget was spent completely.",),
    )


def photos_report(classes: int = 1000) -> StudentReport:
    """Many classes of colour images of 224x224 with names, most of them rare or never seen."""
    random = torch.Generator().manual_seed(1)
    coarse = torch.rand(32, 3, 7, 7, generator=random)
    images = torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bicubic").clamp(0, 1)
    confusion = confusion_of(classes, 2000, 0.71, skewed=True)
    missed = confusion.clone().fill_diagonal_(0).nonzero()[:24]
    logits = 5 * torch.randn(8, classes, generator=random)
    words = ("great white shark", "hen", "bell or wind chime", "black-and-tan coonhound, coonhound")
    return replace(
        digits_report(),
        title="Photos of a served model",
        teacher="https://teacher.example/v2/models/photos",
        student="resnet18",
        data="folder photos/: 2,000 images, 224x224",
        agreement=(int(confusion.trace()), 2000),
        accuracy=None,
        test_agreement=None,
        price_per_1000=1.5,
        class_names=[f"{words[number % 4]} {number}" for number in range(classes)],
        class_counts=confusion.sum(1) * 40,
        confusion=confusion,
        disagreements=Disagreements(images[:24], missed[:, 0], missed[:, 1]),
        soft_examples=SoftExamples(images[24:], logits.softmax(1)),
    )


def wine_report() -> StudentReport:
    """Three classes of rows of features."""
    wine = load_wine()
    features = Features.infer(wine)
    rows = features.encode(wine)
    confusion = torch.tensor([[14, 1, 0], [1, 20, 2], [0, 0, 12]])
    return StudentReport(
        title="Wine",
        teacher="RandomForestClassifier(100 trees)",
        student="mlp",
        data="wine: 40 rows of 13 features",
        strategy="augmented",
        agreement=(46, 50),
        accuracy=(83, 88),
        stages=(ReportStage("decisions", "40 rows", "training", 40, 0.4),),
        class_names=list(wine.target_names),
        class_counts=torch.tensor([12, 17, 11]),
        confusion=confusion,
        disagreements=Disagreements(
            rows[60:64], torch.tensor([0, 1, 1, 1]), torch.tensor([1, 0, 2, 2])
        ),
        soft_examples=SoftExamples(rows[:8], torch.rand(8, 3).softmax(1)),
        features=features,
        reproduce={"seed": "3"},
    )


def hostile_report() -> StudentReport:
    """A report whose strings all try to be something else than text."""
    report = digits_report()
    text = " ".join(HOSTILE)
    names = [*HOSTILE, "eight", "nine"]
    return replace(
        report,
        title=text,
        teacher=text,
        student=text,
        data=text,
        strategy=text,
        stages=[ReportStage(text, text, text, 10, 1.0)],
        choices=[PlanChoice(text, names[0], dict.fromkeys(names, 0.5))],
        class_names=names,
        reproduce={**{name: name for name in names}, "lines": "\n".join(names) + "\n```\n# no"},
        notes=names,
    )
