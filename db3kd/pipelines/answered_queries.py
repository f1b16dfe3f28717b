"""How many queries of a run that was stopped are answered already."""

from pathlib import Path

from db3kd.labelling.label_files import iterate_shards
from db3kd.labelling.labels import LABELS
from db3kd.labelling.totals import Totals
from db3kd.pipelines.answer_run import ANSWERS
from db3kd.storage.run_journals import journaled_answers
from db3kd.storage.shards import read_shards


def answered_in_distill_folder(path: Path) -> int:
    """Returns the number of answers in a run folder of `distill`, apart from its subfolders."""
    shards = read_shards(path, ANSWERS) if ANSWERS.shards(path) else ()
    return journaled_answers(path) + sum(len(table) for _, table in shards)


def answered_in_label_folder(path: Path) -> int:
    """Returns the number of answered queries in a run folder of labels; 0 without a run."""
    totals = Totals()
    for _, labels in iterate_shards(path) if LABELS.shards(path) else ():
        totals.add(labels)
    # The journal of the decisions, which is kept, holds the queries of the images themselves.
    return journaled_answers(path) + totals.queries - totals.decided
