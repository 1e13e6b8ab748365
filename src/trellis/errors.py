# SPDX-License-Identifier: Apache-2.0
"""The base of every error that Trellis raises on purpose, and the one that rejects a request."""


class TrellisError(Exception):
    """What a user or a client can mend; the message says what is wrong and what to do."""


class RequestError(TrellisError, ValueError):
    """One request cannot be served; the message begins with the client's name of the input.

    >>> RequestError("max_tokens: 0 is not allowed; send 1 or more").field
    'max_tokens'
    """

    @property
    def field(self) -> str:
        """The input that is wrong."""
        return str(self).partition(":")[0]


SHOWN = 200  # characters of an error in one line


def one_line(error: BaseException | str) -> str:
    r"""An error as one line of a log: what a client sent may be in it, with line ends, or long.

    >>> one_line(ValueError("a\nb"))
    'a\\nb'
    """
    text = str(error)[: SHOWN + 1]
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
