"""``GET /metrics``: how the service stands, for Prometheus.

All of it is read from the database, so that each web process says the same: how the queue
stands, and what the runners have counted (see ``sql/0022_create_activity.sql``).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from flask import Blueprint, Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from web.overview import read
from web.rows import Row

blueprint = Blueprint("metrics", __name__)

READ_QUEUES = """
    select
        model,
        pending,
        waiting_to_retry as jobs_waiting_to_retry,
        processing,
        coalesce(extract(epoch from oldest_pending_age), 0)::float8 as oldest_pending_seconds,
        runners,
        workers
    from queue_health
"""

# Zeros where nothing was done yet: who looks for a rise has to see what it rises from.
READ_ACTIVITY = """
    select
        model.name as model,
        coalesce(activity.completed, 0) as completed,
        coalesce(activity.failed, 0) as failed,
        coalesce(activity.retried, 0) as retried,
        coalesce(activity.released, 0) as released,
        coalesce(activity.rescued, 0) as rescued,
        coalesce(activity.waits, none.counts) as waits,
        coalesce(activity.wait_seconds, 0) as wait_seconds,
        coalesce(activity.inferences, none.counts) as inferences,
        coalesce(activity.inference_seconds, 0) as inference_seconds,
        floor(coalesce(activity.calls, 0)) as calls,
        coalesce(activity.batch_sizes, none.sizes) as batch_sizes,
        coalesce(activity.batched, 0) as batched,
        histogram_bounds() as bounds,
        batch_size_bounds() as size_bounds
    from model
    left join activity
        on
            model.name = activity.model
            and activity.minute = '-infinity'
    cross join (
        select
            array_fill(0::bigint, array[cardinality(histogram_bounds()) + 1]),
            array_fill(0::bigint, array[cardinality(batch_size_bounds()) + 1])
    ) as none (counts, sizes)
    order by model.name
"""

GAUGES = {
    "oldest_pending_seconds": "Age of the oldest job that waits; 0 where none does.",
    "jobs_waiting_to_retry": "Jobs among the pending that are not due yet.",
    "runners": "Live runners that serve the model.",
    "workers": "Worker processes of these runners.",
}
OUTCOMES = ("completed", "failed", "retried")
COUNTERS = {
    "released": ("jobrunner_releases", "Starts that were handed back, not counted as attempts."),
    "calls": (
        "jobrunner_model_calls",
        "Calls of the model that came to an end, each with the jobs of a batch.",
    ),
    "rescued": ("jobrunner_rescues", "Times that a job was freed from a dead runner."),
}


class Distribution(NamedTuple):
    """A histogram: its name, what it counts, and the columns that hold it."""

    name: str
    said: str
    bounds: str
    counts: str
    total: str


DISTRIBUTIONS = (
    Distribution(
        "jobrunner_wait_seconds",
        "Seconds from when a job was due to its claim, of each claim.",
        "bounds",
        "waits",
        "wait_seconds",
    ),
    Distribution(
        "jobrunner_inference_seconds",
        "Seconds that the call of the model took, as its worker measured it, of each job.",
        "bounds",
        "inferences",
        "inference_seconds",
    ),
    Distribution(
        "jobrunner_batch_size",
        "Jobs in a call of the model, of each call whose jobs have all come to an end.",
        "size_bounds",
        "batch_sizes",
        "batched",
    ),
)
OPENMETRICS = "application/openmetrics-text"


class Found(Collector):
    """What was read, as metrics."""

    def __init__(self, queues: Sequence[Row], activity: Sequence[Row]) -> None:
        self._queues = queues
        self._activity = activity

    def collect(self) -> Iterator[Metric]:
        """Give each metric with a sample for each model."""
        yield self._jobs()
        for name, said in GAUGES.items():
            yield self._gauge(name, said)
        yield self._attempts()
        for column, (name, said) in COUNTERS.items():
            yield self._counter(column, name, said)
        for distribution in DISTRIBUTIONS:
            yield self._histogram(distribution)

    def _jobs(self) -> Metric:
        jobs = GaugeMetricFamily(
            "jobrunner_jobs", "Jobs that are not final.", labels=("model", "status")
        )
        for row in self._queues:
            for status in ("pending", "processing"):
                jobs.add_metric((row["model"], status), row[status])
        return jobs

    def _gauge(self, name: str, said: str) -> Metric:
        gauge = GaugeMetricFamily(f"jobrunner_{name}", said, labels=("model",))
        for row in self._queues:
            gauge.add_metric((row["model"],), row[name])
        return gauge

    def _attempts(self) -> Metric:
        attempts = CounterMetricFamily(
            "jobrunner_attempts",
            "Attempts by what became of their job: final, or retried, which is pending again.",
            labels=("model", "outcome"),
        )
        for row in self._activity:
            for outcome in OUTCOMES:
                attempts.add_metric((row["model"], outcome), row[outcome])
        return attempts

    def _counter(self, column: str, name: str, said: str) -> Metric:
        counter = CounterMetricFamily(name, said, labels=("model",))
        for row in self._activity:
            counter.add_metric((row["model"],), row[column])
        return counter

    def _histogram(self, of: Distribution) -> Metric:
        histogram = HistogramMetricFamily(of.name, of.said, labels=("model",))
        for row in self._activity:
            buckets = cumulative(row[of.bounds], row[of.counts])
            histogram.add_metric((row["model"],), buckets, row[of.total])
        return histogram


@blueprint.get("/metrics")
def metrics() -> Response:
    """Write the metrics in the format that the scraper asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Found(read(READ_QUEUES), read(READ_ACTIVITY)))
    wants_openmetrics = OPENMETRICS in request.headers.get("Accept", "")
    # Asked as it wants to be asked: the library trips over other versions.
    encode, content_type = choose_encoder(
        f"{OPENMETRICS}; version=1.0.0" if wants_openmetrics else ""
    )
    return Response(encode(registry), content_type=content_type)


def cumulative(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Count as Prometheus does: each bucket with those below it."""
    names = [str(float(bound)) for bound in bounds]
    return [*zip([*names, "+Inf"], map(float, accumulate(counts)), strict=True)]
