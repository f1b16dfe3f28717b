"""From images and a teacher's decisions to labels.

`label` decides all images and measures each sample's distance to other classes, within query
budgets. `with_soft_labels` turns the distances into soft labels for a student. A run of
`plan_source_run` and `carry_out` does both for a data set on disk, in one or many processes, and
`open_run` reads the result. With an `AutoSurrogate`, a run trains its surrogate itself, on a part
of its budget.
"""

from db3kd.data.source import Source
from db3kd.labelling.label_images import label, label_chunks
from db3kd.labelling.recovered import Recovered
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.labelling.runs.label_run import LabelRun, open_run
from db3kd.labelling.runs.planned_run import RunExecution, plan_source_run
from db3kd.labelling.runs.run_writer import carry_out
from db3kd.labelling.runs.totals import Totals
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.workers.ray_cluster import Workers
from db3kd.labels.label_files import load_labels
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import SoftLabelSettings, with_soft_labels

__all__ = [
    "AutoSurrogate",
    "LabelRun",
    "LabelSettings",
    "Labels",
    "Recovered",
    "RunExecution",
    "SoftLabelSettings",
    "Source",
    "Totals",
    "Workers",
    "carry_out",
    "label",
    "label_chunks",
    "load_labels",
    "open_run",
    "plan_source_run",
    "with_soft_labels",
]
