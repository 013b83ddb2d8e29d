"""A pod's status from the states of its containers."""

import pytest

from toe_async.sandbox.podstatus import ContainerState, PodState, backoff_seconds, phase, pod_status

WAITING = ContainerState("c")
RUNNING = ContainerState("c", phase="running", reason="", ready=True)
DONE = ContainerState("c", phase="terminated", reason="Completed")
FAILED = ContainerState("c", phase="terminated", reason="Error", exit_code=1)
CRASHED = ContainerState("c", restarts=1, reason="CrashLoopBackOff", last={"terminated": {}})


@pytest.mark.parametrize(
    ("policy", "states", "init", "expected"),
    [
        ("Always", [WAITING], [], "Pending"),
        ("Always", [RUNNING, WAITING], [], "Running"),
        ("Always", [DONE], [], "Running"),
        ("Always", [CRASHED], [], "Running"),
        ("OnFailure", [DONE, DONE], [], "Succeeded"),
        ("OnFailure", [DONE, FAILED], [], "Running"),
        ("Never", [DONE, FAILED], [], "Failed"),
        ("Never", [DONE, RUNNING], [], "Running"),
        ("Never", [WAITING], [FAILED], "Failed"),
        ("Always", [WAITING], [FAILED], "Pending"),
    ],
)
def test_phase(policy: str, states: list[ContainerState], init: list[ContainerState], expected: str) -> None:
    assert phase(policy, states, init) == expected


def test_backoff_starts_at_once_and_is_capped() -> None:
    assert [backoff_seconds(count) for count in (0, 1, 2, 5, 6, 50)] == [0, 10, 20, 160, 300, 300]


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    pod = {"metadata": {}, "spec": {"restartPolicy": "Always", "containers": [{"name": "c", "image": "x"}]}}

    def ready(status: dict[str, list[dict[str, str]]]) -> tuple[str, str]:
        (found,) = [one for one in status["conditions"] if one["type"] == "Ready"]
        return found["status"], found["lastTransitionTime"]

    first = pod_status(pod, PodState([WAITING]), "t1")
    second = pod_status({**pod, "status": first}, PodState([RUNNING]), "t2")
    third = pod_status({**pod, "status": second}, PodState([RUNNING]), "t3")
    assert [ready(one) for one in (first, second, third)] == [("False", "t1"), ("True", "t2"), ("True", "t2")]
    assert third["startTime"] == "t1"
