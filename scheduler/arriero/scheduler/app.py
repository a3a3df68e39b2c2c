"""The Celery app: its queues, its tasks, its schedule.

``celery -A arriero.scheduler.app worker -Q rules,transfer,delete,maintenance`` and ``... beat``. The module's ``app`` is made
when it is asked for, from the environment; importing the module reads no setting.
"""

from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging, task_postrun, task_prerun, worker_shutting_down
from kombu import Exchange, Queue

from arriero.registry.logs import configure_logs
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings, refuse_unknown_environment
from arriero.scheduler.doorbell import CeleryDoorbell
from arriero.scheduler.names import (
    EVALUATE,
    QUEUES,
    RUN_DELETIONS,
    RUN_TRANSFERS,
    SUBSCRIBE,
    SWEEPS,
    queue_of,
)
from arriero.scheduler.process import Work, make_context
from arriero.scheduler.tasks import add_tasks

VISIBILITY_TIMEOUT_S = 6 * 3600
"""When Redis gives a message to a second worker, seconds: longer than any copy; the database decides anyway."""

_apps: dict[str, "SchedulerApp"] = {}


class SchedulerApp(Celery):
    """A Celery app that knows what its tasks work with."""

    work: Work


def create_celery(settings: Settings | None = None, *, context: Context | None = None) -> SchedulerApp:
    """Make a Celery app.

    Parameters
    ----------
    settings
        Those of the environment when None.
    context
        What the tasks work with, within one process; None makes one in each worker process.

    Returns
    -------
    SchedulerApp
        With the tasks, the queues and the schedule of the sweeps.
    """
    settings = settings or (context.settings if context is not None else Settings())
    broker = settings.broker_url.get_secret_value()
    if broker == "memory://":
        # without a host the transport warns at each connection
        broker = "memory://localhost"
    app = SchedulerApp("arriero", broker=broker, set_as_current=False)
    app.conf.update(_configuration(settings))
    given = context
    work = Work(lambda: given or make_context(settings, CeleryDoorbell(app)))
    add_tasks(app, work)
    app.work = work
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    tasks = (EVALUATE, SUBSCRIBE, RUN_TRANSFERS, RUN_DELETIONS, *SWEEPS)
    options: dict[str, Any] = {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "socket_connect_timeout": 3,
        # a ring that cannot be sent is given up soon: the sweeps find the work
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 0.2,
    }
    if settings.broker_url.get_secret_value().startswith(("memory", "filesystem")):
        options = {"polling_interval": 0.05}
    return {
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        # a message that is lost with its worker is a hint lost: the sweep finds the work
        "task_reject_on_worker_lost": False,
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        "task_create_missing_queues": False,
        "task_default_queue": "maintenance",
        "task_routes": {name: {"queue": queue_of(name)} for name in tasks},
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": options,
        "enable_utc": True,
        "timezone": "UTC",
        # in memory: the schedule is intervals only, there is nothing to remember
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": min(settings.sweep_s, 60.0),
        "beat_schedule": {
            # a sweep that nobody has run by the time of the next one is not worth keeping
            name: {"task": name, "schedule": settings.sweep_s, "options": {"expires": settings.sweep_s}}
            for name in SWEEPS
        },
    }


@task_prerun.connect
def _bind_task(task_id: str, task: Any, **_: Any) -> None:
    structlog.contextvars.bind_contextvars(task_id=task_id, task=task.name)


@task_postrun.connect
def _unbind_task(**_: Any) -> None:
    structlog.contextvars.unbind_contextvars("task_id", "task")


def __getattr__(name: str) -> SchedulerApp:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _apps:
        refuse_unknown_environment()
        settings = Settings()
        made = _apps[name] = create_celery(settings)
        setup_logging.connect(lambda **_: configure_logs(settings.log_level), weak=False)
        # SIGTERM ends copies and gives them back, instead of waiting for them for hours
        worker_shutting_down.connect(lambda **_: made.work.stop(), weak=False)
    return _apps[name]
