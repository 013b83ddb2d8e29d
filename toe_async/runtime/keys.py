"""How an object is named inside the process."""

from typing import NamedTuple


class Key(NamedTuple):
    """Namespace and name of an object of a known kind; ``namespace`` is empty for kinds that have none.

    Never a UID: an object deleted and made again has the same key, so whoever acts on one compares UIDs first.
    """

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name
