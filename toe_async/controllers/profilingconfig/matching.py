"""Which pods a configuration means, answered without walking all pods.

A watched cluster may hold 50,000 pods and 1,000 configurations. The index keeps, per namespace, the pods that opted in
(few) and, for label keys that some selector really uses, the pods per label value. A selector's candidates are the
smallest of its label sets; only they are compared. Fed by the pod informer's handler; never blocks, never awaits.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from toe_async.apis.pods import Pod
from toe_async.apis.selectors import Selector

_Label = tuple[str, str, str]  # namespace, key, value


class Matched(NamedTuple):
    """How many pods a selector means, and those of them that opted in."""

    total: int
    opted_in: tuple[Pod, ...]


class PodIndex:
    """Pods by namespace, by opt-in and by the label keys in use."""

    def __init__(self, opted_in: Callable[[Pod], bool]) -> None:
        self._is_opted_in = opted_in
        self._pods: dict[str, dict[str, Pod]] = {}
        self._opted_in: dict[str, dict[str, Pod]] = {}
        self._keys_in_use: set[str] = set()
        self._by_label: dict[_Label, dict[str, Pod]] = {}

    def handle(self, old: Pod | None, new: Pod | None) -> None:
        """Take over one change, as an informer reports it."""
        if old is not None:
            self._remove(old)
        if new is not None:
            self._pods.setdefault(new.namespace, {})[new.name] = new
            if self._is_opted_in(new):
                self._opted_in.setdefault(new.namespace, {})[new.name] = new
            for label in self._labels_in_use(new, self._keys_in_use):
                self._by_label.setdefault(label, {})[new.name] = new

    def use_keys(self, keys: Iterable[str]) -> None:
        """Index these label keys from now on and forget the others; walks the pods once per key that is new."""
        wanted = set(keys)
        if dropped := self._keys_in_use - wanted:
            self._by_label = {label: pods for label, pods in self._by_label.items() if label[1] not in dropped}
        if added := wanted - self._keys_in_use:
            for pods in self._pods.values():
                for pod in pods.values():
                    for label in self._labels_in_use(pod, added):
                        self._by_label.setdefault(label, {})[pod.name] = pod
        self._keys_in_use = wanted

    def opted_in(self, namespace: str) -> dict[str, Pod]:
        """The pods of a namespace that opted in, by name."""
        return self._opted_in.get(namespace, {})

    def match(self, namespace: str, selector: Selector) -> Matched:
        """Count the selected pods of a namespace and return those that opted in, in order of their names."""
        candidates, settled = self._candidates(namespace, selector)
        opted_in = self._opted_in.get(namespace, {})
        # Whichever is smaller is walked: a thousand configurations over one namespace must not each walk all of it.
        if len(candidates) < len(opted_in):
            pool = [pod for name, pod in candidates.items() if name in opted_in]
        else:
            pool = [pod for name, pod in opted_in.items() if name in candidates]
        chosen = pool if settled else [pod for pod in pool if selector.matches(pod.labels)]
        total = len(candidates) if settled else sum(selector.matches(pod.labels) for pod in candidates.values())
        return Matched(total, tuple(sorted(chosen, key=lambda pod: pod.name)))

    def _candidates(self, namespace: str, selector: Selector) -> tuple[dict[str, Pod], bool]:
        """The smallest indexed set that holds every selected pod, and whether it holds no other."""
        sets = [
            self._by_label.get((namespace, key, value), {})
            for key, value in selector.equality.items()
            if key in self._keys_in_use
        ]
        candidates = min(sets, key=len, default=self._pods.get(namespace, {}))
        left = len(selector.equality) - bool(sets)
        return candidates, not selector.requirements and left == 0

    def _remove(self, pod: Pod) -> None:
        for table in (self._pods, self._opted_in):
            held = table.get(pod.namespace, {})
            held.pop(pod.name, None)
            if not held:
                table.pop(pod.namespace, None)
        for label in self._labels_in_use(pod, self._keys_in_use):
            pods = self._by_label.get(label, {})
            pods.pop(pod.name, None)
            if not pods:
                self._by_label.pop(label, None)

    @staticmethod
    def _labels_in_use(pod: Pod, keys: set[str]) -> Iterator[_Label]:
        for key, value in pod.labels.items():
            if key in keys:
                yield (pod.namespace, key, value)
