"""The error of one request."""


class RequestError(RuntimeError):
    """The worker failed one request; any other exception is the end of the executor."""
