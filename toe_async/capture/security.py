"""The security context of a tool's container, and what a namespace's Pod Security level will say to it. Pure.

Meanings (PC4): `allowPrivileged` makes the container privileged; `runAsRoot: true` is user 0; `false` is the target's
user, or 65532 where that is root; unset is root when capabilities are added (a capability does nothing for another
user) and the target's own user otherwise. Privilege escalation is off and the runtime's seccomp profile on wherever the
API server and the tool allow it. All capabilities are dropped unless the tool runs as root and drops none by itself.
"""

from typing import Any, Final

from toe_async.apis.powertoolconfig import PowerToolConfigSpec, ToolSecurity

NOBODY: Final = 65532
LEVEL_LABEL: Final = "pod-security.kubernetes.io/enforce"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# capabilities(7), Linux 6.12
CAPABILITIES: Final = _words(
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH "
    "FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN "
    "NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT "
    "SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG SYSLOG WAKE_ALARM"
)
# Pod Security Standards 1.36, baseline: what may be added.
_BASELINE: Final = _words(
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
)


def normal(capability: str) -> str:
    """The name of a capability as Kubernetes wants it: upper case, without CAP_."""
    return capability.upper().removeprefix("CAP_")


def chosen(tool: PowerToolConfigSpec, level: str) -> ToolSecurity:
    """The security settings for namespaces of one Pod Security level (D29)."""
    return next((one.security_context for one in tool.security_profiles if one.level == level), tool.security_context)


def as_root(wanted: ToolSecurity) -> bool | None:
    """Whether the tool runs as root; None is: as the target's user."""
    if wanted.run_as_root is not None:
        return wanted.run_as_root
    return True if wanted.capabilities.add or wanted.allow_privileged else None


def security_context(wanted: ToolSecurity, target_user: int | None, target_group: int | None = None) -> dict[str, Any]:
    """A core/v1 SecurityContext. User and group are those of the target's first process, None where unknown.

    The group comes along because ptrace and everything below /proc/PID compare it too (ptrace(2), access mode checks).
    """
    add = [normal(one) for one in wanted.capabilities.add]
    drop = [normal(one) for one in wanted.capabilities.drop]
    root = as_root(wanted)
    user = 0 if root else (NOBODY if target_user is None else target_user)
    if root is False and user == 0:
        user = NOBODY
    group = {"runAsGroup": target_group} if target_group is not None and user == target_user else {}
    if wanted.allow_privileged:
        return {"privileged": True, "runAsUser": user, **group, "runAsNonRoot": user != 0}
    if user != 0 and not drop:
        drop = ["ALL"]
    capabilities = {key: value for key, value in (("add", add), ("drop", drop)) if value}
    context: dict[str, Any] = {
        "privileged": False,
        "runAsUser": user,
        **group,
        "runAsNonRoot": user != 0,
        "allowPrivilegeEscalation": "SYS_ADMIN" in add,  # the API server refuses false beside this capability
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {**context, "capabilities": capabilities} if capabilities else context


def level_faults(level: str, context: dict[str, Any]) -> tuple[str, ...]:
    """What a namespace that enforces this level has against the container; empty when it takes it.

    Source: the Pod Security Standards. The API server decides; this only tells it before a container is asked for.
    """
    if level not in {"baseline", "restricted"}:
        return ()
    capabilities = context.get("capabilities") or {}
    added = {normal(one) for one in capabilities.get("add") or ()}
    faults = []
    if context.get("privileged"):
        faults.append("privileged")
    allowed = _BASELINE if level == "baseline" else frozenset({"NET_BIND_SERVICE"})
    if unusual := sorted(added - allowed):
        faults.append(f"the added capabilities {', '.join(unusual)}")
    if level == "restricted":
        if "ALL" not in {normal(one) for one in capabilities.get("drop") or ()}:
            faults.append("capabilities that are not all dropped")
        if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
            faults.append("running as root")
        if context.get("allowPrivilegeEscalation") is not False:
            faults.append("privilege escalation")
        if (context.get("seccompProfile") or {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            faults.append("no seccomp profile")
    return tuple(faults)
