"""Which form of an answer a client asks for: its Accept header, read as an API server reads it. Pure."""

from enum import Enum

from toe_async.collector.errors import Refused

_META = "meta.k8s.io"
_DISCOVERY = "apidiscovery.k8s.io"


class Form(Enum):
    """What is sent back."""

    OBJECT = "object"
    TABLE = "Table"
    PARTIAL = "PartialObjectMetadata"
    PARTIAL_LIST = "PartialObjectMetadataList"
    AGGREGATED = "APIGroupDiscoveryList"


_FORMS = {
    ("Table", _META, "v1"): Form.TABLE,
    ("PartialObjectMetadata", _META, "v1"): Form.PARTIAL,
    ("PartialObjectMetadataList", _META, "v1"): Form.PARTIAL_LIST,
    ("APIGroupDiscoveryList", _DISCOVERY, "v2"): Form.AGGREGATED,
}
ONE = frozenset({Form.OBJECT, Form.TABLE, Form.PARTIAL})
MANY = frozenset({Form.OBJECT, Form.TABLE, Form.PARTIAL_LIST})
DOCUMENT = frozenset({Form.OBJECT})
DISCOVERY = frozenset({Form.OBJECT, Form.AGGREGATED})


def form(accept: str, offered: frozenset[Form]) -> Form:
    """The first form of the header that is offered; anything will do when there is no header.

    Like an API server it takes the ranges in the order given and weighs no `q`, except that `q=0` means never.

    Raises:
        Refused: 406, none of them is; JSON is all there is.
    """
    if not accept.strip():
        return Form.OBJECT
    for part in accept.split(","):
        media, *rest = (piece.strip() for piece in part.split(";"))
        parameters = {
            name.strip().lower(): value.strip() for name, _, value in (piece.partition("=") for piece in rest)
        }
        if media.lower() not in {"application/json", "application/*", "*/*"} or _never(parameters.get("q", "1")):
            continue
        wanted = parameters.get("as", "")
        if not wanted:
            return Form.OBJECT
        found = _FORMS.get((wanted, parameters.get("g", ""), parameters.get("v", "")))
        if found in offered:
            return found
    raise Refused(406, "NotAcceptable", "only application/json is answered here, plain or as a v1 Table or metadata")


def _never(q: str) -> bool:
    return not q.strip("0.") and q.startswith("0")
