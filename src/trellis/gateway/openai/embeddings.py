# SPDX-License-Identifier: Apache-2.0
"""POST /v1/embeddings: rejected until an engine makes them."""

from trellis.gateway.openai.endpoint import Endpoint
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.sending import Client, Scope


class Embeddings(Endpoint):
    """The endpoint."""

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Raises OpenAIError."""
        raise OpenAIError(
            400,
            "model: no engine of this server makes embeddings; ask a server that has such a model",
            param="model",
            code="unsupported_model",
        )
