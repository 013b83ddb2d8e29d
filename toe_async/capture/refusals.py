"""Why something will not be done: one word and one sentence with the way out."""

from msgspec import Struct

from toe_async.apis.reasons import Reason


class Refused(Struct, frozen=True, gc=False):
    """A refusal. The reason is stable, the sentence is for people."""

    reason: Reason
    message: str
