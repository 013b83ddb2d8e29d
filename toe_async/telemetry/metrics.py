"""Every metric, declared once, with zero values from the start so that no dashboard has a hole.

client-go's and controller-runtime's own names where they have one (existing dashboards work); ``profiling_*`` are the
names of the system that ProfilingConfig comes from; the rest is ``toe_``. No label ever holds a pod, a UID or a user.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from toe_async import __version__

# The spread that controller-runtime and client-go use, in seconds.
_QUEUE_BUCKETS = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10, 100)
_RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CAPTURE_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 45, 60, 90, 120, 300, 600)


class _Registrar:
    """Declares metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, text, tuple(labels), registry=self._registry)

    def gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, text, tuple(labels), registry=self._registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()) -> Histogram:
        return Histogram(name, text, tuple(labels), buckets=buckets, registry=self._registry)


class OperatorMetrics:
    """What the operator counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = _Registrar(registry)
        self.registry = registry
        # client-go and controller-runtime
        queue = ("name",)
        self.workqueue_depth = make.gauge("workqueue_depth", "Current depth of the work queue.", queue)
        self.workqueue_adds = make.counter("workqueue_adds_total", "Adds handled by the work queue.", queue)
        self.workqueue_retries = make.counter("workqueue_retries_total", "Retries handled by the work queue.", queue)
        self.workqueue_queue_duration = make.histogram(
            "workqueue_queue_duration_seconds", "How long a key stays queued.", _QUEUE_BUCKETS, queue
        )
        self.workqueue_work_duration = make.histogram(
            "workqueue_work_duration_seconds", "How long processing a key takes.", _QUEUE_BUCKETS, queue
        )
        self.workqueue_unfinished_work = make.gauge(
            "workqueue_unfinished_work_seconds", "Seconds of work in progress that is not finished.", queue
        )
        self.workqueue_longest_running = make.gauge(
            "workqueue_longest_running_processor_seconds", "Age of the longest running processor.", queue
        )
        self.reconcile_total = make.counter(
            "controller_runtime_reconcile_total", "Reconciliations per controller.", ("controller", "result")
        )
        self.reconcile_errors = make.counter(
            "controller_runtime_reconcile_errors_total", "Reconciliations that failed.", ("controller",)
        )
        self.reconcile_panics = make.counter(
            "controller_runtime_reconcile_panics_total",
            "Reconciliations that raised an unexpected error.",
            ("controller",),
        )
        self.reconcile_terminal_errors = make.counter(
            "controller_runtime_terminal_reconcile_errors_total", "Errors that are not retried.", ("controller",)
        )
        self.reconcile_time = make.histogram(
            "controller_runtime_reconcile_time_seconds", "Time per reconciliation.", _RECONCILE_BUCKETS, ("controller",)
        )
        self.max_concurrent_reconciles = make.gauge(
            "controller_runtime_max_concurrent_reconciles", "Workers per controller.", ("controller",)
        )
        self.active_workers = make.gauge("controller_runtime_active_workers", "Busy workers.", ("controller",))
        self.rest_client_requests = make.counter(
            "rest_client_requests_total", "Requests to the API server.", ("code", "method", "host")
        )
        self.leader_election_master_status = make.gauge(
            "leader_election_master_status", "1 while this process holds the lease.", ("name",)
        )
        # the system that ProfilingConfig comes from
        self.profiling_captures = make.counter("profiling_captures_total", "Captures started.", ("reason",))
        self.profiling_uploads = make.counter("profiling_uploads_total", "Profiles stored.", ("sink",))
        self.profiling_errors = make.counter("profiling_errors_total", "Captures and uploads that failed.", ("reason",))
        self.profiling_threshold_violations = make.counter(
            "profiling_threshold_violations_total", "Samples above their threshold that fired.", ("resource",)
        )
        # ours
        self.captures = make.counter("toe_captures_total", "Captures ended.", ("kind", "tool", "result", "reason"))
        self.capture_duration = make.histogram(
            "toe_capture_duration_seconds", "From the claim to the last byte received.", _CAPTURE_BUCKETS, ("kind",)
        )
        self.artifact_bytes = make.counter("toe_artifact_bytes_total", "Bytes of stored artifacts.", ("sink",))
        self.uploads = make.counter("toe_uploads_total", "Attempts to store an artifact.", ("sink", "result"))
        self.upload_in_progress = make.gauge("toe_upload_in_progress", "Uploads under way.")
        self.spool_bytes = make.gauge("toe_spool_bytes", "Bytes received and not stored yet.")
        self.duplicate_captures_prevented = make.counter(
            "toe_duplicate_captures_prevented_total", "Captures refused because they had been claimed before."
        )
        self.authz_denials = make.counter(
            "toe_authz_denials_total",
            "Requests of authors that were refused because they are not allowed.",
            ("reason",),
        )
        self.watch_last_event_age = make.gauge(
            "toe_watch_last_event_age_seconds", "Seconds since a watch last gave a sign of life.", ("resource",)
        )
        self.watch_restarts = make.counter("toe_watch_restarts_total", "Watches begun again.", ("resource", "reason"))
        self.relists = make.counter("toe_relist_total", "Full lists read.", ("resource",))
        self.informer_objects = make.gauge("toe_informer_objects", "Objects in the cache.", ("resource",))
        self.undecodable_objects = make.counter("toe_undecodable_objects_total", "Objects skipped.", ("resource",))
        self.metrics_polls = make.counter("toe_metrics_polls_total", "Polls of metrics.k8s.io.", ("result",))
        self.not_fired = make.counter("toe_not_fired_total", "Evaluations that started no capture.", ("reason",))
        self.events_dropped = make.counter("toe_events_dropped_total", "Events not sent because of their rate.")
        _build_info(make)


class CollectorMetrics:
    """What the collector counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = _Registrar(registry)
        self.registry = registry
        self.uploads = make.counter("toe_collector_uploads_total", "Uploads answered.", ("code",))
        self.bytes = make.counter("toe_collector_bytes_total", "Bytes committed.")
        self.captures_open = make.gauge("toe_collector_captures_open", "Registered captures that still take uploads.")
        self.store_free_bytes = make.gauge("toe_collector_store_free_bytes", "Bytes free in the store.")
        self.artifacts = make.gauge("toe_collector_artifacts", "Artifacts kept.")
        self.stored_bytes = make.gauge("toe_collector_stored_bytes", "Bytes of the artifacts kept.")
        self.held = make.gauge("toe_collector_held_artifacts", "Artifacts that a hold keeps from retention.")
        self.removed = make.counter("toe_collector_retention_removed_total", "Artifacts that retention removed.")
        self.removed_bytes = make.counter("toe_collector_retention_removed_bytes_total", "Bytes of those.")
        self.orphans = make.counter("toe_collector_orphans_removed_total", "Leftovers of crashes that were removed.")
        self.tidy_errors = make.counter("toe_collector_tidy_errors_total", "Passes, and removals in them, that failed.")
        self.token_reviews = make.counter("toe_collector_token_reviews_total", "Token reviews.", ("result",))
        self.rest_client_requests = make.counter(
            "rest_client_requests_total", "Requests to the API server.", ("code", "method", "host")
        )
        _build_info(make)


def _build_info(make: _Registrar) -> None:
    make.gauge("toe_build_info", "Always 1; the labels say what runs.", ("version",)).labels(__version__).set(1)
