"""DeleteOptions, and `dryRun` of the query string. Pure."""

from collections.abc import Sequence

import msgspec
from msgspec import field

from toe_async.apis.meta import Decoder, Wire
from toe_async.collector.api.status import conflict
from toe_async.collector.errors import Refused


class Preconditions(Wire, frozen=True, kw_only=True):
    """Which incarnation of the object is meant; empty: any."""

    uid: str = ""
    resource_version: str = ""


class DeleteOptions(Wire, frozen=True, kw_only=True):
    """What of metav1.DeleteOptions has a meaning here: artifacts have no grace period and nothing depends on them."""

    dry_run: tuple[str, ...] = ()
    preconditions: Preconditions = field(default_factory=Preconditions)

    @property
    def dry(self) -> bool:
        """Whether nothing is to be changed."""
        return bool(self.dry_run)

    def check(self, name: str, uid: str, version: str) -> None:
        """Refuse (409) to delete another object than is meant."""
        wanted = self.preconditions
        if wanted.uid and wanted.uid != uid:
            raise conflict(
                name,
                f"the UID in the precondition ({wanted.uid[:80]}) does not match the UID in record ({uid}). The object "
                "might have been deleted and then recreated",
            )
        if wanted.resource_version and wanted.resource_version != version:
            raise conflict(
                name,
                f"the ResourceVersion in the precondition ({wanted.resource_version[:80]}) does not match the "
                f"ResourceVersion in record ({version}). The object might have been modified",
            )


_decode = Decoder(DeleteOptions)


def delete_options(body: bytes, dry_run: Sequence[str]) -> DeleteOptions:
    """Read the options of a deletion from its body, or, when there is none, from `dryRun` of its query.

    Raises:
        Refused: 400 the body cannot be read, 422 `dryRun` is not All.
    """
    try:
        found = _decode(body) if body.strip() else DeleteOptions(dry_run=tuple(dry_run))
    except msgspec.DecodeError:
        raise Refused(400, "BadRequest", "the body is no DeleteOptions") from None
    is_dry(found.dry_run)
    return found


def is_dry(values: Sequence[str]) -> bool:
    """Whether `dryRun` asks to change nothing; raises Refused (422) for what is not All."""
    if any(value != "All" for value in values):
        raise Refused(422, "Invalid", "dryRun: the only value supported is All")
    return bool(values)
