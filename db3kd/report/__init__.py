"""Tables, figures and pages of results.

`write_student_report` writes the page of one student, and `write_summary` that of several, as HTML
and as Markdown. `write_report` writes the page of labels, and `write_zero_shot_report` that of
students without images, both as Markdown with PNG figures. None needs a display. The tables and
figures of the last two are functions of their own, which take arrays, CPU tensors or results of a
comparison.
"""

from db3kd.report.class_distances import class_distance_matrix, mean_class_distances
from db3kd.report.comparison import (
    ComparedStudent,
    ComparisonRow,
    comparison_table,
)
from db3kd.report.intervals import percent, wilson_interval
from db3kd.report.label_figures import distance_curve, sample_grid
from db3kd.report.pages import ClassDistances, Samples, write_report
from db3kd.report.pseudo_sample_figures import (
    accuracy_by_queries,
    class_grid,
    distance_by_moves,
    move_grid,
)
from db3kd.report.student_page import write_student_report
from db3kd.report.student_report import (
    Disagreements,
    PlanChoice,
    ReportStage,
    SoftExamples,
    StudentReport,
)
from db3kd.report.summary_page import Summary, write_summary
from db3kd.report.tables import method_table
from db3kd.report.zero_shot import (
    ZeroShotRow,
    write_zero_shot_report,
    zero_shot_table,
)

__all__ = [
    "ClassDistances",
    "ComparedStudent",
    "ComparisonRow",
    "Disagreements",
    "PlanChoice",
    "ReportStage",
    "Samples",
    "SoftExamples",
    "StudentReport",
    "Summary",
    "ZeroShotRow",
    "accuracy_by_queries",
    "class_distance_matrix",
    "class_grid",
    "comparison_table",
    "distance_by_moves",
    "distance_curve",
    "mean_class_distances",
    "method_table",
    "move_grid",
    "percent",
    "sample_grid",
    "wilson_interval",
    "write_report",
    "write_student_report",
    "write_summary",
    "write_zero_shot_report",
    "zero_shot_table",
]
