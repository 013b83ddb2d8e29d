"""The verbs on stored objects: create, update (PUT, PATCH and apply alike) and delete, by the real server's rules.

All methods are synchronous: between reading the present state and writing the next nothing else can happen, which is
etcd's compare-and-swap. HTTP, the kubelet and the controllers all write through here.
"""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from toe_async.lib.clock import Clock, parse_rfc3339, rfc3339
from toe_async.sandbox import builtin, crds, ephemeral, podsecurity
from toe_async.sandbox.admission import Admission, Attempt
from toe_async.sandbox.rbac import MASTERS, User
from toe_async.sandbox.resources import CRDS, NAMESPACES, PODS, Registry, Resource
from toe_async.sandbox.status import (
    Cause,
    JsonObject,
    Refusal,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    modified,
    not_found,
    qualified,
)
from toe_async.sandbox.store import Item, Key, Store, encode_item

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_SYSTEM_META = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "namespace",
)
SYSTEM = User("system:sandbox", groups=(MASTERS,))


class Context(Struct, frozen=True):
    """Who writes and how."""

    user: User = SYSTEM
    dry_run: bool = False
    field_validation: str = "Warn"


_AS_SYSTEM = Context()


class Written(Struct, frozen=True):
    """What a write left behind. `created` says 201, `warnings` go into headers."""

    item: Item
    created: bool = False
    warnings: tuple[str, ...] = ()


class DeleteOptions(Struct, frozen=True, rename="camel"):
    """The options of a delete, from its body or query."""

    grace_period_seconds: int | None = None
    propagation_policy: str | None = None
    preconditions: dict[str, str] | None = None
    dry_run: list[str] | None = None


class Verbs:
    """Writes to the store by the rules."""

    def __init__(
        self, store: Store, registry: Registry, admission: Admission, clock: Clock, rng: random.Random
    ) -> None:
        self.store = store
        self.registry = registry
        self._admission = admission
        self._clock = clock
        self._rng = rng

    def new_uid(self) -> str:
        """A random UID."""
        digits = f"{self._rng.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def now(self) -> str:
        """The present second as objects carry it."""
        return rfc3339(self._clock.now())

    def create(self, resource: Resource, namespace: str, body: JsonObject, context: Context = _AS_SYSTEM) -> Written:
        """Create an object. Raises Refusal."""
        obj = self._adopt(resource, namespace, body)
        meta: JsonObject = obj["metadata"]
        if meta.get("resourceVersion"):
            raise Refusal(500, "", "resourceVersion should not be set on objects to be created")
        self._require_namespace(resource, namespace)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(self._rng.choices(_SUFFIX, k=5))
        for key in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"):
            meta.pop(key, None)
        meta["uid"] = self.new_uid()
        meta["creationTimestamp"] = self.now()
        if resource.namespaced:
            meta["namespace"] = namespace
        if resource.generation:
            meta["generation"] = 1
        if resource.has_status and (resource.custom or resource is CRDS):
            obj.pop("status", None)
        warnings = self._prepare(resource, obj, None, context)
        at = Key(namespace if resource.namespaced else "", meta["name"])
        self._admit("CREATE", resource, at, context, obj=obj)
        if self.store.get(resource, at) is not None:
            raise already_exists(resource.group, resource.plural, at.name)
        if context.dry_run:
            return Written(_unstored(resource, at, obj), True, warnings)
        item = self.store.put(resource, at, obj)
        if resource is CRDS:
            item = self._register(item)
        return Written(item, True, warnings)

    def update(
        self,
        resource: Resource,
        key: Key,
        change: Callable[[JsonObject], JsonObject],
        context: Context = _AS_SYSTEM,
        *,
        subresource: str = "",
        replace: bool = False,
    ) -> Written:
        """Change an object: `change` gets a copy of the present state and returns the wanted one.

        `replace` marks a PUT, whose resourceVersion some kinds insist on. A write that changes
        nothing makes no version. Raises Refusal.
        """
        held = self.store.get(resource, key)
        if held is None:
            raise not_found(resource.group, resource.plural, key.name)
        old = held.obj
        obj = self._adopt(resource, key.namespace, change(_copy(old)))
        meta: JsonObject = obj["metadata"]
        self._check_identity(resource, key, held, meta, replace=replace)
        for name in _SYSTEM_META:
            if name in old["metadata"]:
                meta[name] = old["metadata"][name]
            else:
                meta.pop(name, None)
        obj = self._split_status(resource, obj, old, subresource)
        warnings = self._prepare(resource, obj, old, context, subresource)
        if resource.generation and _spec(obj) != _spec(old):
            obj["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        self._admit("UPDATE", resource, key, context, obj=obj, old=old, subresource=subresource)
        obj["metadata"]["resourceVersion"] = str(held.revision)
        if obj == old:
            return Written(held, warnings=warnings)
        if context.dry_run:
            return Written(_unstored(resource, key, obj, held.revision), warnings=warnings)
        if self._finished(resource, obj):
            return Written(self._remove(resource, held, obj), warnings=warnings)
        item = self.store.put(resource, key, obj)
        if resource is CRDS and subresource != "status":
            item = self._register(item)
        return Written(item, warnings=warnings)

    def write_status(self, resource: Resource, key: Key, change: Callable[[JsonObject], JsonObject]) -> Item | None:
        """Let the sandbox's own parts change an object's status; None when the object is gone."""
        if self.store.get(resource, key) is None:
            return None
        return self.update(resource, key, change, subresource="status").item

    def delete(
        self, resource: Resource, key: Key, options: DeleteOptions, context: Context = _AS_SYSTEM
    ) -> tuple[Item, bool]:
        """Delete or begin to; returns the object's last state and whether it is gone already. Raises Refusal."""
        held = self.store.get(resource, key)
        if held is None:
            raise not_found(resource.group, resource.plural, key.name)
        self._check_preconditions(resource, held, options.preconditions or {})
        self._admit("DELETE", resource, key, context, old=held.obj)
        grace = self._grace(resource, held.obj, options)
        obj = _copy(held.obj)
        meta: JsonObject = obj["metadata"]
        finalizers: list[str] = list(meta.get("finalizers") or ())
        for policy, name in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
            if options.propagation_policy == policy and name not in finalizers:
                finalizers.append(name)
        if finalizers:
            meta["finalizers"] = finalizers
        if context.dry_run or options.dry_run:
            return held, not finalizers and grace == 0
        waits = bool(finalizers) or grace > 0 or (resource is NAMESPACES and bool(obj["spec"].get("finalizers")))
        if not waits:
            last = self.store.remove(resource, held)
            if resource is not PODS:
                return last, True
            self._mark_deleted(resource, obj, grace)
            return _unstored(resource, key, obj, last.revision), True
        self._mark_deleted(resource, obj, grace)
        return (held if obj == held.obj else self.store.put(resource, key, obj)), False

    def _mark_deleted(self, resource: Resource, obj: JsonObject, grace: int) -> None:
        meta = obj["metadata"]
        if "deletionTimestamp" in meta and grace >= meta["deletionGracePeriodSeconds"]:
            return
        end: datetime = self._clock.now() + timedelta(seconds=grace)
        if "deletionTimestamp" in meta:  # a later delete may only shorten the wait
            end = min(end, parse_rfc3339(meta["deletionTimestamp"]))
        meta["deletionTimestamp"] = rfc3339(end)
        meta["deletionGracePeriodSeconds"] = grace
        if resource is NAMESPACES:
            obj["status"] = {**obj.get("status", {}), "phase": "Terminating"}
        elif resource.generation:
            meta["generation"] = meta.get("generation", 0) + 1

    def _grace(self, resource: Resource, obj: JsonObject, options: DeleteOptions) -> int:
        if resource is not PODS:
            return 0
        if not obj["spec"].get("nodeName") or obj["status"].get("phase") in {"Succeeded", "Failed"}:
            return 0
        asked = options.grace_period_seconds
        return int(obj["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)

    def _adopt(self, resource: Resource, namespace: str, body: Any) -> JsonObject:
        if not isinstance(body, dict):
            raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind})")
        obj = dict(body)
        kind, api_version = obj.get("kind"), obj.get("apiVersion")
        if resource.custom and not kind:
            shown = msgspec.json.encode(body).decode()[:60]
            why = f"(must be of type {resource.kind}): Object 'Kind' is missing in '{shown}'"
            raise bad_request(f"the object provided is unrecognized {why}")
        if (kind or resource.kind) != resource.kind:
            version = f'in version "{api_version or resource.api_version}"'
            raise bad_request(f"{kind} {version} cannot be handled as a {resource.kind}")
        if (api_version or resource.api_version) != resource.api_version:
            expected = f"the expected API version ({resource.api_version})"
            raise bad_request(f"the API version in the data ({api_version}) does not match {expected}")
        obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
        meta = obj.get("metadata")
        obj["metadata"] = meta = dict(meta) if isinstance(meta, dict) else {}
        _check_shape(resource, meta)
        if resource.namespaced and meta.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        for name in [name for name, value in meta.items() if value is None or value in ([], {})]:
            del meta[name]
        return obj

    def _require_namespace(self, resource: Resource, namespace: str) -> None:
        if not resource.namespaced:
            return
        held = self.store.get(NAMESPACES, Key("", namespace))
        if held is None:
            raise not_found("", "namespaces", namespace)
        if "deletionTimestamp" in held.obj["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            refusal = forbidden(resource.group, resource.plural, "", why)
            message = f"namespace {namespace} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
            refusal.details = {**(refusal.details or {}), "causes": [cause]}
            raise refusal

    def _prepare(
        self, resource: Resource, obj: JsonObject, old: JsonObject | None, context: Context, subresource: str = ""
    ) -> tuple[str, ...]:
        """Prune, default and validate; returns warnings."""
        unknown: list[str] = []
        causes = builtin.check_metadata(resource, obj["metadata"])
        if resource.schema is not None:
            unknown = resource.schema.prune(obj)
            resource.schema.default(obj)
            causes += resource.schema.validate(obj, old)
        else:
            try:
                builtin.default(resource, obj, old)
                causes += builtin.check(resource, obj, old, subresource)
            except (
                AttributeError,
                IndexError,
                KeyError,
                TypeError,
            ) as error:  # a value of another type than its kind has
                version = f'{resource.kind} in version "{resource.version}"'
                raise bad_request(f"{version} cannot be handled as a {resource.kind}: {error!r}") from error
        fields = [f'unknown field "{path}"' for path in unknown]
        if unknown and context.field_validation == "Strict":
            version = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise bad_request(f"{version}: strict decoding error: {', '.join(fields)}")
        if causes:
            raise invalid(resource.group, resource.kind, obj["metadata"].get("name", ""), causes)
        return tuple(fields) if context.field_validation == "Warn" else ()

    def _check_identity(self, resource: Resource, key: Key, held: Item, meta: JsonObject, *, replace: bool) -> None:
        if meta.get("name") != key.name:
            names = f"({meta.get('name', '')}) does not match the name on the URL ({key.name})"
            raise bad_request(f"the name of the object {names}")
        asked = str(meta.get("resourceVersion") or "")
        if replace and not asked and not resource.unconditional:
            message = "Invalid value: 0: must be specified for an update"
            cause = Cause("FieldValueInvalid", message, "metadata.resourceVersion")
            raise invalid(resource.group, resource.plural, key.name, [cause])
        if asked not in {"", "0", str(held.revision)}:
            raise modified(resource.group, resource.plural, key.name)
        uid = held.obj["metadata"]["uid"]
        if meta.get("uid", uid) != uid:
            if not replace:  # checked where it is merged and once more with the kind's own rules, and reported twice
                cause = Cause(
                    "FieldValueInvalid", f'Invalid value: "{meta["uid"]}": field is immutable', "metadata.uid"
                )
                raise invalid(resource.group, resource.kind, key.name, [cause, cause])
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {uid}"
            raise conflict(resource.group, resource.plural, key.name, why)

    def _check_preconditions(self, resource: Resource, held: Item, wanted: dict[str, str]) -> None:
        uid = held.obj["metadata"]["uid"]
        kind, name = qualified(resource.group, resource.kind), held.key.name
        if wanted.get("uid", uid) != uid:
            why = f"the UID in the precondition ({wanted['uid']}) does not match the UID in record ({uid}). "
            raise conflict("", kind, name, why + "The object might have been deleted and then recreated")
        version = str(held.revision)
        if wanted.get("resourceVersion", version) != version:
            asked = wanted["resourceVersion"]
            why = f"the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record "
            raise conflict("", kind, name, f"{why}({version}). The object might have been modified")

    def _split_status(self, resource: Resource, obj: JsonObject, old: JsonObject, subresource: str) -> JsonObject:
        if subresource == ephemeral.SUBRESOURCE:
            return ephemeral.only(old, obj)
        if subresource == "status":
            kept = dict(old)
            if not resource.custom:
                kept["metadata"] = obj["metadata"]
            elif "managedFields" in obj["metadata"]:
                kept["metadata"] = {**old["metadata"], "managedFields": obj["metadata"]["managedFields"]}
            if "status" in obj:
                kept["status"] = obj["status"]
            else:
                kept.pop("status", None)
            return _copy(kept)
        if resource.has_status:
            obj = dict(obj)
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = old["status"]
        return obj

    def _admit(
        self,
        operation: str,
        resource: Resource,
        key: Key,
        context: Context,
        *,
        obj: JsonObject | None = None,
        old: JsonObject | None = None,
        subresource: str = "",
    ) -> None:
        attempt = Attempt(
            operation=operation,
            resource=resource,
            namespace=key.namespace,
            name=key.name,
            user=context.user,
            obj=obj,
            old=old,
            subresource=subresource,
            dry_run=context.dry_run,
        )
        podsecurity.review(self.store, attempt)
        self._admission.review(attempt)

    def _finished(self, resource: Resource, obj: JsonObject) -> bool:
        meta = obj["metadata"]
        if "deletionTimestamp" not in meta or meta.get("finalizers"):
            return False
        if resource is NAMESPACES:
            return not obj["spec"].get("finalizers")
        return not meta.get("deletionGracePeriodSeconds")

    def _remove(self, resource: Resource, held: Item, obj: JsonObject) -> Item:
        """The last finalizer went: the object goes with it, and the answer shows it as it was written last."""
        obj["metadata"]["resourceVersion"] = str(held.revision)
        self.store.remove(resource, held)
        return _unstored(resource, held.key, obj, held.revision)

    def _register(self, item: Item) -> Item:
        """Serve what a definition says and write its status."""
        for resource in crds.resources(item.obj):
            self.registry.drop(resource.group, resource.plural)
            self.registry.add(resource)
            self.store.collection(resource)
        if (item.obj.get("status") or {}).get("conditions"):
            return item
        obj = _copy(item.obj)
        obj["status"] = crds.accepted(obj, self.now())
        return self.store.put(CRDS, item.key, obj)


class _Meta(Struct, rename="camel"):
    """The types of the metadata that clients write."""

    name: str | None = None
    generate_name: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[dict[str, str | bool]] | None = None


def _check_shape(resource: Resource, meta: JsonObject) -> None:
    try:
        msgspec.convert(meta, _Meta)
    except msgspec.ValidationError as error:
        version = f'{resource.kind} in version "{resource.version}"'
        raise bad_request(f"{version} cannot be handled as a {resource.kind}: json: {error}") from error


def _spec(obj: JsonObject) -> JsonObject:
    return {key: value for key, value in obj.items() if key not in {"metadata", "status"}}


def _copy(obj: JsonObject) -> JsonObject:
    copied: JsonObject = msgspec.json.decode(msgspec.json.encode(obj))
    return copied


def _unstored(resource: Resource, key: Key, obj: JsonObject, revision: int = 0) -> Item:
    """An answer that is not, or no longer, in the store."""
    return Item(key, revision, obj, encode_item(resource, obj))
