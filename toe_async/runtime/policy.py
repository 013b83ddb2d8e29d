"""Whether an admission policy is in force that holds the authors of one kind to their own rights.

Without it anybody who may create such an object could have the operator act for him, so a missing policy or binding
stops everything of that kind (guarantees.md H21) unless the administrator said that it is optional. The two objects are
read by name once a minute, more often while they are missing: an install applies them in any order.
"""

import asyncio
from collections.abc import Callable

import msgspec

from toe_async.apis.kinds import POLICIES, POLICY_BINDINGS
from toe_async.kube.errors import Forbidden, KubeError, NotFound
from toe_async.kube.requests import get
from toe_async.kube.sender import Sender
from toe_async.telemetry import log

PROFILING_POLICY = "toe-profilingconfig-author"
POWERTOOL_POLICY = "toe-powertool-author"
_SETTLED_SECONDS = 60.0
_MISSING_SECONDS = 5.0
_log = log.get("runtime.policy")


class _BindingSpec(msgspec.Struct, rename="camel"):
    policy_name: str = ""
    validation_actions: list[str] = []


class _Binding(msgspec.Struct):
    spec: _BindingSpec = msgspec.field(default_factory=_BindingSpec)


class PolicyMonitor:
    """Knows what is missing. ``problem`` is None while policy and binding are there, else one sentence.

    The binding bears the policy's name. ``flag`` is how the operator is told that the policy is optional. ``known``
    turns true with the first answer; before it nobody may decide anything. Once seen, an API server that is away
    changes nothing.
    """

    def __init__(self, client: Sender, name: str, on_change: Callable[[], None], *, required: bool, flag: str) -> None:
        self.name, self._flag = name, flag
        self._client, self._on_change = client, on_change
        self.problem: str | None = f"the admission policy {name} has not been looked for yet" if required else None
        self.known = not required
        self._required = required

    async def run(self) -> None:
        """Look again and again until cancelled; only wait for that when the policy is optional."""
        if not self._required:
            await asyncio.Event().wait()
        while True:
            try:
                problem = await self._look()
            except KubeError as error:
                _log.warning("the admission policy cannot be read", policy=self.name, problem=str(error))
                problem = self.problem
            else:
                self.known = True
            if problem != self.problem:
                _log.info("the admission policy changed", policy=self.name, problem=problem)
                self.problem = problem
                self._on_change()
            await asyncio.sleep(_MISSING_SECONDS if problem else _SETTLED_SECONDS)

    async def _look(self) -> str | None:
        name = self.name
        try:
            await self._client.send(get(POLICIES, None, name, timeout=10.0))
            raw = await self._client.send(get(POLICY_BINDINGS, None, name, timeout=10.0))
            binding = msgspec.json.decode(raw, type=_Binding).spec
        except NotFound as error:
            return (
                f"{error.message}; apply the ValidatingAdmissionPolicy and the ValidatingAdmissionPolicyBinding "
                f"{name} from deploy/base, or start the operator with {self._flag}=optional"
            )
        except Forbidden as error:
            return f"the operator may not read the admission policy {name}: {error.message}"
        except msgspec.DecodeError as error:
            return f"the admission policy {name} cannot be read: {error}"
        if binding.policy_name != name or "Deny" not in binding.validation_actions:
            return (
                f"the ValidatingAdmissionPolicyBinding {name} must name the policy {name} and deny: "
                f"set policyName and validationActions: [Deny]"
            )
        return None
