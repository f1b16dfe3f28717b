"""Ctrl-C and SIGKILL at random moments of a served run: a small benchmarks.systems.interrupts."""

import pytest
import torch
from forked import forked_processes
from teachers_analytic import NearestCentroidTeacher

from db3kd.data.loading import load_data
from db3kd.labelling.settings import LabelSettings
from db3kd.teachers import RequestSettings

interrupts = pytest.importorskip("benchmarks.systems.interrupts", reason="no benchmarks")


def test_a_stop_costs_at_most_the_requests_in_flight(tmp_path):
    images = load_data("digits")
    everything = images.read(torch.arange(len(images)))
    centroids = torch.stack([everything[images.labels == c].mean(0) for c in range(10)])
    settings = LabelSettings("bd", queries_per_pair=4, seed=1)
    requests = RequestSettings(batch=4, in_flight=3)
    forked_processes()
    with interrupts.LimitedServer(NearestCentroidTeacher(centroids, (1, 8, 8)), 2000) as server:
        work = interrupts.Work(server.model, "digits", settings, 40, requests)
        outcomes = list(
            interrupts.stop_often(work, server, ["kill", "interrupt"], tmp_path, 0.4, seed=3)
        )
    stops = [stop for outcome in outcomes for stop in outcome.stops]
    assert [stop.how for stop in stops] == ["kill", "interrupt"]
    for stop in stops:
        assert stop.lost <= stop.in_flight <= 12
    assert stops[1].lost == 0, "an interrupt waits for what is in flight"
    for outcome in outcomes:
        assert outcome.same
        assert outcome.twice == sum(stop.lost for stop in outcome.stops) <= outcome.in_flight
