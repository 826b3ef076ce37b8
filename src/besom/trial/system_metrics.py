"""CPU, memory, disk and network of the whole machine while a trial runs, by MLflow's own monitor.

The monitor writes from a thread of its own into the run that it is told, wherever that is: MLflow's global run and
tracking address are not looked at. Knows nothing of what the trial does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from besom.spool.attempt import bounded
from besom.trial.run_logger import RunLogger

SECONDS = 2
"""Between two values, unless ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` is set. Many trials end within MLflow's 10."""

LAST_SECONDS = 20.0
"""For the last values."""


@contextmanager
def system_metrics(uri: str, logger: RunLogger) -> Iterator[None]:
    """Log ``system/…`` metrics into a run for the length of a ``with``, however it ends.

    Nobody's result hangs on them: what MLflow does not take is left out, and it is not waited for.

    Args:
        uri: where the run is tracked.
        logger: says whether MLflow is away.
    """
    import psutil
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(logger.run_id, sampling_interval=SECONDS, tracking_uri=uri)
    psutil.cpu_percent()  # the share since the last call: since now, and not since the trial before
    monitor.start()
    try:
        yield
    finally:
        if not logger.is_spooling:
            with suppress(Exception):  # MLflow's, of any kind
                bounded(lambda: _finish(monitor), LAST_SECONDS)


def _finish(monitor: Any) -> None:
    monitor.finish()
    # it leaves out the time since its last value, which of a short trial is all there is
    for part in monitor.monitors:
        part.clear_metrics()
    monitor.collect_metrics()
    monitor.publish_metrics(monitor.aggregate_metrics())
    monitor.mlflow_logger.flush()
