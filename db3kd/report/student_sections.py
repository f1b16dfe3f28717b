"""Turns the values of a student's report into sections of text, tables and figures."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from db3kd.progress import duration
from db3kd.report.agreement_curve import curve_section
from db3kd.report.intervals import interval_of, percent
from db3kd.report.student_blocks import (
    Bar,
    Bars,
    Block,
    Card,
    Cards,
    HeatCell,
    HeatMap,
    Section,
    Settings,
    Table,
)
from db3kd.report.student_report import StudentReport
from db3kd.report.text import clean_text, shown_name
from db3kd.report.thumbnails import channels_note
from db3kd.tables import Feature
from db3kd.wording import also_paid, counted, money, plain_number

MAX_CLASSES = 20
"""With more classes, only the most frequent ones and the most frequent confusions are shown."""

MAX_DISAGREEMENTS = 24
MAX_SOFT_EXAMPLES = 8
_TOP_CLASSES = 5
_MAX_FEATURES = 40


def student_sections(report: StudentReport) -> list[Section]:
    """Returns the sections of the page, without those that the report has no values for."""
    makers: tuple[Callable[[StudentReport], Section | None], ...] = (
        _stages,
        curve_section,
        _choices,
        _balance,
        _confusion,
        _disagreements,
        _soft_labels,
    )
    sections = [
        *(make(report) for make in makers),
        _terms(report),
        _values(
            "Use the student",
            "How to load the student, to measure its agreement on other data, and to export it.",
            report.usage,
        ),
        _values("Settings", "What is needed to make this student again.", report.reproduce),
    ]
    return [section for section in sections if section is not None]


def headline(report: StudentReport) -> tuple[str, str]:
    """Returns the agreement, and what it is a share of: `93.1 %`, `(91.0 to 94.8 %) of 700 …`."""
    matches, total = report.agreement
    return percent(matches / total), (
        f"({interval_of(matches, total)}) of {counted(total, report.held_out_noun)}"
    )


def key_figures(report: StudentReport) -> list[tuple[str, str]]:
    """Returns the other numbers of the headline, each with what it is."""
    found = []
    if report.confusion is not None:
        counts = report.confusion.sum(1)
        usual = class_name(report, int(counts.argmax()))
        share = int(counts.max()) / report.agreement[1]
        found.append((percent(share), f"agreement of a constant answer, always class {usual}"))
    for measured, what in (
        (report.accuracy, "accuracy"),
        (report.test_agreement, "agreement with the teacher"),
    ):
        if measured is not None:
            matches, total = measured
            interval = f"({interval_of(matches, total)}) of {counted(total, f'test {report.noun}')}"
            found.append((percent(matches / total), f"{what} {interval}"))
    if report.queries is not None:
        found.append((f"{report.queries:,}", f"queries in total{also_paid(report.paid_twice)}"))
        price = report.price(report.queries)
        if price is not None:
            rate = money(report.price_per_1000 or 0)
            highest = report.price(report.queries + report.paid_twice) or 0.0
            twice = (
                f"; at most {money(highest)} with those that may have been paid twice"
                if report.paid_twice
                else ""
            )
            found.append((money(price), f"price, at {rate} per 1,000 queries{twice}"))
        seconds = sum(stage.seconds for stage in report.stages)
        found.append((duration(seconds), "time (h:mm:ss)"))
    return found


def class_name(report: StudentReport, number: int) -> str:
    """Returns the name of a class as the page shows it; its number if it has no name."""
    return str(number) if report.class_names is None else shown_name(report.class_names[number])


def _stages(report: StudentReport) -> Section | None:
    if not report.stages:
        return None
    priced = report.price_per_1000 is not None
    head = ["stage", "queried", "why", "queries", *(["price"] if priced else []), "time (h:mm:ss)"]
    totals = ("all stages", "", "", report.queries or 0, sum(each[4] for each in report.stages))
    rows = []
    for name, asked, reason, queries, seconds in (*report.stages, totals):
        price = report.price(queries)
        cost = [f"{queries:,}"] if price is None else [f"{queries:,}", money(price)]
        rows.append([name, asked, reason, *cost, duration(seconds)])
    table = Table(head, rows, text_columns=3, strong_rows=[len(report.stages)])
    return Section("Queries by stage", "", [table])


def _choices(report: StudentReport) -> Section | None:
    if not report.choices:
        return None
    rows: list[list[str]] = []
    strong = []
    for choice in report.choices:
        for number, (alternative, share) in enumerate(choice.agreements.items()):
            name = choice.name if number == 0 else ""
            chosen = alternative == choice.chosen
            if chosen:
                strong.append(len(rows))
            measured = "not measured" if share is None else f"{100 * share:.1f}"
            rows.append([name, alternative, "chosen" if chosen else "", measured])
    head = ["choice", "alternative", "", "validation agreement (%)"]
    noun = report.noun
    text = f"Alternatives are compared on {report.held_out_noun}s, never on test {noun}s."
    if report.validation is not None:
        augmented = report.validation - report.agreement[1]
        more = counted(augmented, "augmented version")
        versions = f" and {more} of them" if augmented > 0 else ""
        lower = " It is usually lower on augmented versions." if augmented > 0 else ""
        text = (
            f"Alternatives are compared by their validation agreement with the teacher, on the "
            f"{counted(report.agreement[1], report.held_out_noun)}{versions}, never on test "
            f"{noun}s.{lower}"
        )
    text = f"Strategy: {report.strategy}. {text}"
    return Section("Plan", text, [Table(head, rows, text_columns=3, strong_rows=strong)])


def _balance(report: StudentReport) -> Section | None:
    if report.class_counts is None or not int(report.class_counts.sum()):
        return None
    counts = report.class_counts.long()
    total, classes = int(counts.sum()), len(counts)
    order = torch.arange(classes)
    text = f"The teacher's decisions for the {counted(total, report.noun)} that were queried."
    if classes > MAX_CLASSES:
        order = counts.argsort(descending=True, stable=True)[:MAX_CLASSES]
        text += f" The {MAX_CLASSES} most frequent of {classes:,} classes are shown."
    if unseen := int((counts == 0).sum()):
        text += f" It chose {unseen:,} of {classes:,} classes for no {report.noun}."
    largest = int(counts.max())
    bars = [
        Bar(
            class_name(report, number),
            int(counts[number]) / largest,
            f"{int(counts[number]):,} ({percent(int(counts[number]) / total)})",
        )
        for number in order.tolist()
    ]
    head = ("teacher's class", f"{report.noun}s")
    return Section("Class balance", text, [Bars(head, bars)])


def _confusion(report: StudentReport) -> Section | None:
    if report.confusion is None:
        return None
    title, noun, held_out = "Teacher against student", report.noun, report.held_out_noun
    if len(report.confusion) <= MAX_CLASSES:
        text = f"Number of {held_out}s by teacher's class (rows) and student's class (columns)."
        return Section(title, text, [_heat_map(report, report.confusion)])
    missed = report.confusion.long().clone().fill_diagonal_(0)
    classes = len(missed)
    seen = report.confusion.sum(1)
    found = missed.flatten().argsort(descending=True, stable=True)[:MAX_CLASSES].tolist()
    rows = []
    for teacher, student in (divmod(place, classes) for place in found):
        if count := int(missed[teacher, student]):
            names = class_name(report, teacher), class_name(report, student)
            rows.append([*names, f"{count:,}", f"{int(seen[teacher]):,}"])
    text = f"{int((seen > 0).sum()):,} of {classes:,} classes occur among the {held_out}s."
    if not rows:
        return Section(title, f"{text} There is no disagreement.", [])
    text += f" The {len(rows)} most frequent confusions are shown."
    head = ["teacher's class", "student's class", f"{noun}s", f"{noun}s of the teacher's class"]
    return Section(title, text, [Table(head, rows, text_columns=2)])


def _heat_map(report: StudentReport, confusion: Tensor) -> HeatMap:
    """Colours a match by its share of the row, and a miss by its share of the greatest such share.

    Misses are few; their colours would be invisible beside those of the matches.
    """
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    misses = shares.clone().fill_diagonal_(0)
    strengths = misses / misses.max().clamp(min=1e-9)
    strengths += shares.diagonal().diag()
    rows = [
        [HeatCell(int(count), float(each)) for count, each in zip(counts, row, strict=True)]
        if counts.any()
        else None
        for counts, row in zip(confusion, strengths, strict=True)
    ]
    return HeatMap([class_name(report, number) for number in range(len(confusion))], rows)


def _disagreements(report: StudentReport) -> Section | None:
    shown = report.disagreements
    if shown is None or not len(shown.images):
        return None
    images = shown.images[:MAX_DISAGREEMENTS]
    classes = [
        (("teacher", class_name(report, teacher)), ("student", class_name(report, student)))
        for teacher, student in zip(
            shown.teacher_classes[:MAX_DISAGREEMENTS].tolist(),
            shown.student_classes[:MAX_DISAGREEMENTS].tolist(),
            strict=True,
        )
    ]
    matches, total = report.agreement
    missed = total - matches
    some = f"All {missed:,}" if len(images) == missed else f"{len(images)} of the {missed:,}"
    text = f"{some} {report.held_out_noun}s on which teacher and student disagree."
    if report.pseudo_samples:
        text += " They say little about the images on which the student will be used."
    text += _counting_note(shown.names)
    text += _channels_note(images)
    block: Block
    if images.ndim == 2:
        table = _feature_table(report, images, shown.names)
        decided = [
            [f"{who}'s class", *(pair[place][1] for pair in classes)]
            for place, who in enumerate(("teacher", "student"))
        ]
        block = Table(table.head, [*decided, *table.rows])
    else:
        block = Cards(
            [
                Card(name, image, pair)
                for name, image, pair in zip(
                    _titles(shown.names, images), images, classes, strict=True
                )
            ],
            "disagreements",
        )
    return Section("Disagreements", text, [block])


def _soft_labels(report: StudentReport) -> Section | None:
    shown = report.soft_examples
    if shown is None or not len(shown.images):
        return None
    images = shown.images[:MAX_SOFT_EXAMPLES]
    cards = []
    titles = _titles(shown.names, images)
    for title, image, row in zip(titles, images, shown.probabilities, strict=False):
        top = row.double().topk(min(_TOP_CLASSES, len(row)))
        bars = [
            Bar(class_name(report, place), min(1.0, share), percent(share))
            for share, place in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        cards.append(Card(title, image if images.ndim == 4 else None, bars=bars))
    text = f"{shown.source}: the classes of highest probability.{_counting_note(shown.names)}"
    text += _channels_note(images)
    blocks: list[Block] = [Cards(cards, "soft-labels")]
    if images.ndim == 2:
        blocks.append(_feature_table(report, images, shown.names))
    return Section("Soft labels", text, blocks)


def _titles(names: Sequence[str], images: Tensor) -> list[str]:
    """Returns what the page calls examples. Names are not cut, so that their files are found."""
    if names:
        return [" ".join(clean_text(name).split()) for name in names[: len(images)]]
    noun = "image" if images.ndim == 4 else "row"
    return [f"{noun} {number}" for number in range(1, len(images) + 1)]


def _counting_note(names: Sequence[str]) -> str:
    """Says from which number `ImageSet.name_of` counts, if names are numbers."""
    if not names or not re.fullmatch(r"(row|item) \d+", names[0]):
        return ""
    return f" The first {names[0].partition(' ')[0]} of the data has the number 0."


def _channels_note(images: Tensor) -> str:
    note = channels_note(images.shape[1]) if images.ndim == 4 else ""
    return f" {note}" if note else ""


def _feature_table(report: StudentReport, rows: Tensor, names: Sequence[str]) -> Table:
    """Returns a table with a row for each feature, at most 40, and a column for each example."""
    features: Sequence[Feature]
    if report.features is None:
        features = [Feature.continuous(f"feature {n}", 0, 1) for n in range(rows.shape[1])]
        values = rows.tolist()
    else:
        features = tuple(report.features)
        values = report.features.decode(rows, as_frame=False).tolist()
    body = [
        [shown_name(feature.name), *(_shown_value(row[place], feature) for row in values)]
        for place, feature in enumerate(features[:_MAX_FEATURES])
    ]
    if len(features) > _MAX_FEATURES:
        rest = f"and {counted(len(features) - _MAX_FEATURES, 'more feature')}"
        body.append([rest, *[""] * len(rows)])
    return Table(["feature", *_titles(names, rows)], body)


def _shown_value(value: Any, feature: Feature) -> str:
    if feature.kind == "categorical":
        return shown_name(str(value))
    return plain_number(value)


def _terms(report: StudentReport) -> Section | None:
    """Explains the words of a run, which are specific to the method."""
    if not report.stages:
        return None
    noun, held_out = report.noun, report.held_out_noun
    terms = {
        "decision": f"The class that the teacher returns for one {noun}. Each costs one query.",
        "agreement": f"The share of {noun}s that the student puts in the teacher's class.",
        held_out: f"One of a few {noun}s that measure the student, which never learns them.",
        "95 % Wilson interval": (
            f"The agreement on all {noun}s like these is probably in this interval; the fewer "
            f"{noun}s measure it, the wider it is."
        ),
        f"augmented {noun}": f"A mixture of {noun}s, of which db3kd makes as many as it needs.",
        f"validation {noun}": (
            f"A {held_out}, or an augmented version of one. Choices are made, and training may "
            "stop early, by the agreement on them."
        ),
        "round": "Queries that are chosen together, with what the answers so far have shown.",
        "proxy": (
            f"A larger network that learns the answers, then chooses {noun}s to query or labels "
            f"further {noun}s for the student. It sends no query."
        ),
    }
    if report.pseudo_samples:
        terms.pop(f"augmented {noun}")
        terms[f"validation {noun}"] = f"The same as a {held_out}."
        terms["pseudo sample"] = f"An {noun} that db3kd made, because the run has no {noun}s."
    return Section("Terms", "", [Table(["term", "meaning"], list(terms.items()), text_columns=2)])


def _values(title: str, text: str, values: Mapping[str, str]) -> Section | None:
    return Section(title, text, [Settings(list(values.items()))]) if values else None
