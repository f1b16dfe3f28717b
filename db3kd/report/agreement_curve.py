"""The section of a student's report that shows its agreement against the number of queries."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from db3kd.report.intervals import wilson_interval
from db3kd.report.plot_style import COLOURS, MARKERS, plot_axes, use_query_axis
from db3kd.report.student_blocks import Plot, Section
from db3kd.report.student_report import StudentReport
from db3kd.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curve_section(report: StudentReport) -> Section | None:
    """Returns the section, or None with fewer than two points."""
    if len(report.curve) < 2:
        return None
    images = report.agreement[1]
    label = f"Agreement on held-out {report.noun}s against the number of queries"
    text = (
        f"Agreement on the {counted(images, f'held-out {report.noun}')}: of the proxies after each "
        "round of acquisition, and finally of the student. The bars are 95 % intervals."
    )
    plot = Plot(partial(_draw_curve, report.curve, images), "agreement.png", label)
    return Section("Agreement against queries", text, [plot])


def _draw_curve(curve: Sequence[tuple[int, float]], images: int) -> "Figure":
    """Draws the agreement of the proxies of each round, and that of the student.

    A point is a number of queries and the agreement, in [0, 1], on `images` images. The last point
    is the student's.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    queries = [point[0] for point in curve]
    shares = [100 * point[1] for point in curve]
    intervals = [wilson_interval(round(share * images), images) for _, share in curve]
    low = [100 * each[0] for each in intervals]
    high = [100 * each[1] for each in intervals]
    figure, axes = plot_axes("queries", "agreement (%)", size=(4.8, 3.0))
    # The student is another network than the proxies, so no line joins them.
    groups = (("proxies", slice(0, -1)), ("student", slice(-1, None)))
    for number, (name, part) in enumerate(groups):
        below = [max(0.0, share - end) for share, end in zip(shares[part], low[part], strict=True)]
        above = [max(0.0, end - share) for share, end in zip(shares[part], high[part], strict=True)]
        axes.errorbar(
            queries[part],
            shares[part],
            [below, above],
            label=name,
            color=COLOURS[number],
            marker=MARKERS[number],
            linewidth=2,
            elinewidth=1,
            capsize=3,
            markersize=6,
        )
    # Within the axes, it may cover an interval.
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    if queries[0] > 0 and queries[-1] >= 20 * queries[0]:
        use_query_axis(axes)
        crowded = queries[-1] >= 100 * queries[0]
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if crowded else (1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    last = queries[-1], shares[-1]
    axes.annotate(f"{last[1]:.1f}", last, (0, 8), textcoords="offset points", ha="center")
    # At least two percentage points high, so that a flat curve looks flat.
    height = max(high) - min(low)
    margin = max(0.05 * height, 1 - height / 2)
    axes.set_ylim(min(low) - margin, max(high) + margin)
    return figure
