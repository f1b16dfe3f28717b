"""Tables, figures and pages of results.

`write_student_report` writes the page of one student, and `write_summary` that of several, as HTML
and as Markdown. `write_report` writes the page of labels as Markdown with PNG figures, which are
also functions of their own that take arrays or CPU tensors. None needs a display.
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
from db3kd.report.student_page import write_student_report
from db3kd.report.student_report import (
    Disagreements,
    PlanChoice,
    ReportStage,
    SoftExamples,
    StudentReport,
)
from db3kd.report.summary_page import Summary, write_summary

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
    "class_distance_matrix",
    "comparison_table",
    "distance_curve",
    "mean_class_distances",
    "percent",
    "sample_grid",
    "wilson_interval",
    "write_report",
    "write_student_report",
    "write_summary",
]
