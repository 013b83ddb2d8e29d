"""What a reconcile may say about its failure; the class says what happens next."""


class TransientError(Exception):
    """What was expected to go wrong at times went wrong; the key is tried again under the rate limits."""


class TerminalError(Exception):
    """Trying again is useless until somebody changes something; the next watch event starts anew."""


class NotLeadingError(TransientError):
    """Somebody else may hold the lease by now: the write must not be made. Whoever leads does the work."""
