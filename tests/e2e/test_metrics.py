"""What Prometheus gets: promtool reads it without complaint, and the promised series are there."""

import shutil

import pytest

from tests.e2e.harness import SYSTEM, Kube, run

pytestmark = pytest.mark.e2e

OPERATOR = (
    "profiling_captures_total",
    "profiling_uploads_total",
    "profiling_errors_total",
    "profiling_threshold_violations_total",
    "workqueue_depth",
    "controller_runtime_reconcile_total",
    "rest_client_requests_total",
    "leader_election_master_status",
    "toe_captures_total",
    "toe_uploads_total",
    "toe_spool_bytes",
    "toe_informer_objects",
    "toe_watch_last_event_age_seconds",
    "toe_build_info",
)
COLLECTOR = (
    "toe_collector_uploads_total",
    "toe_collector_bytes_total",
    "toe_collector_store_free_bytes",
    "toe_collector_token_reviews_total",
    "toe_build_info",
)


def pods(kube: Kube, app: str) -> list[str]:
    found = kube.items("pods", namespace=SYSTEM, selector=f"app.kubernetes.io/name={app}")
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


@pytest.mark.parametrize("app", ["toe-operator", "toe-collector"])
def test_promtool_has_no_complaint(installed: Kube, app: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not in the PATH (Debian: package prometheus)")
    found = pods(installed, app)
    assert found
    for pod in found:
        done = run(["promtool", "check", "metrics"], stdin=installed.metrics(pod), check=False)
        assert done.code == 0, done.out + done.err


@pytest.mark.parametrize(("app", "names"), [("toe-operator", OPERATOR), ("toe-collector", COLLECTOR)])
def test_the_promised_series_are_there(installed: Kube, app: str, names: tuple[str, ...]) -> None:
    for pod in pods(installed, app):
        families = {line.split()[2] for line in installed.metrics(pod).splitlines() if line.startswith("# TYPE")}
        missing = sorted(set(names) - families)
        assert not missing


def test_one_replica_says_that_it_leads(installed: Kube) -> None:
    leading = [
        pod
        for pod in pods(installed, "toe-operator")
        if 'leader_election_master_status{name="toe-async-operator"} 1' in installed.metrics(pod)
    ]
    assert leading == [installed.leader()]


def test_no_series_is_labelled_with_pods_or_users(installed: Kube) -> None:
    for app in ("toe-operator", "toe-collector"):
        for pod in pods(installed, app):
            text = installed.metrics(pod)
            assert not [line for line in text.splitlines() if any(f'{key}="' in line for key in ("pod", "uid", "user"))]
