"""Metrics for Prometheus. Anybody may ask, as for ``/ui``: there are numbers, and asking again costs nothing."""

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from arriero.registry.services.metrics import Family, Metrics

router = APIRouter(include_in_schema=False)


class _Measured(Collector):
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    @override
    def collect(self) -> Iterator[Metric]:
        return map(_metric, self._families)


def _metric(family: Family) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.samples.items():
        metric.add_metric(labels, value)
    return metric


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Give the figures as Prometheus, or OpenMetrics where that is asked for, reads them."""
    figures: Metrics = request.app.state.metrics
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Measured(figures.get()))
    encoder, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"})
