"""The plot of agreement against queries: no line from proxies to the student, and error bars."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from student_report_cases import digits_report

from db3kd.report import wilson_interval
from db3kd.report.agreement_curve import _draw_curve, curve_section

CURVE = [(100, 0.5), (200, 0.6), (300, 0.8)]


def test_no_line_joins_the_proxies_and_the_student():
    axes = _draw_curve(CURVE, 50).axes[0]
    proxies, student = axes.containers

    assert proxies.get_label() == "proxies" and student.get_label() == "student"
    assert proxies.lines[0].get_xydata().tolist() == [[100, 50], [200, 60]]
    assert student.lines[0].get_xydata().tolist() == [[300, 80]]


def test_each_point_has_its_interval_inside_the_plot():
    axes = _draw_curve(CURVE, 50).axes[0]
    bars = [part for each in axes.containers for part in each.lines[2][0].get_segments()]

    bottom, top = axes.get_ylim()
    for (queries, share), bar in zip(CURVE, bars, strict=True):
        expected = 100 * np.array(wilson_interval(round(50 * share), 50))
        assert np.allclose(bar, [[queries, expected[0]], [queries, expected[1]]])
        assert bottom < expected[0] and expected[1] < top


def test_the_text_says_what_is_shown_on_how_many_images():
    section = curve_section(digits_report())
    assert section is not None and "the 700 held-out images" in section.text
    assert "finally of the student" in section.text and "95 % intervals" in section.text
    assert curve_section(replace(digits_report(), curve=CURVE[:1])) is None
