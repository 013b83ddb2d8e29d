"""Whether a ProfilingConfig may run at all: an ordered list of checks, the first refusal is told. Pure."""

from toe_async.apis.reasons import Reason
from toe_async.controllers.profilingconfig.facts import Observed


def _policy(seen: Observed) -> tuple[Reason, str] | None:
    return (Reason.POLICY_MISSING, seen.policy_problem) if seen.policy_problem else None


def _selector(seen: Observed) -> tuple[Reason, str] | None:
    try:
        seen.config.spec.selector.compiled()
    except ValueError as error:
        return Reason.INVALID_SPEC, f"spec.selector.matchExpressions: {error}"
    return None


def _sinks(seen: Observed) -> tuple[Reason, str] | None:
    spec = seen.config.spec
    if (spec.s3_config is None) == (spec.collector is None):
        return Reason.INVALID_SPEC, "exactly one sink is needed: set either spec.s3Config or spec.collector"
    return (Reason.SINK_NOT_ALLOWED, seen.sink_problem) if seen.sink_problem else None


def _grant(seen: Observed) -> tuple[Reason, str] | None:
    if seen.granted:
        return None
    meta, target = seen.config.metadata, seen.config.target_namespace
    message = (
        f"namespace {target} does not exist or does not let {meta.namespace} profile its pods; its owner can grant it: "
        f"kubectl annotate namespace {target} profiling.io/allow-from={meta.namespace}"
    )
    return Reason.NAMESPACE_NOT_GRANTED, message


REFUSALS = (_policy, _selector, _sinks, _grant)


def refusal_of(seen: Observed) -> tuple[Reason, str] | None:
    return next((found for check in REFUSALS if (found := check(seen)) is not None), None)
