# SPDX-License-Identifier: Apache-2.0
"""The one exception of this package."""

from trellis.errors import TrellisError


class TokenizerError(TrellisError, ValueError):
    """Says which file, option or field is wrong, how, and what to do about it."""
