# SPDX-License-Identifier: Apache-2.0
"""The paths of OpenAI's API."""

from collections.abc import Iterator

from starlette.routing import BaseRoute, Route

from trellis.gateway.openai.chat import ChatCompletions
from trellis.gateway.openai.completions import Completions
from trellis.gateway.openai.embeddings import Embeddings
from trellis.gateway.openai.models import ModelList, OneModel
from trellis.gateway.openai.responses import Responses
from trellis.gateway.openai.tokenizing import Detokenize, Tokenize
from trellis.gateway.state import State


def openai_routes(state: State) -> Iterator[BaseRoute]:
    """All of them."""
    posts = {
        "/v1/chat/completions": ChatCompletions,
        "/v1/completions": Completions,
        "/v1/responses": Responses,
        "/v1/embeddings": Embeddings,
        "/tokenize": Tokenize,
        "/detokenize": Detokenize,
    }
    for path, endpoint in posts.items():
        yield Route(path, endpoint(state), methods=["POST"])
    yield Route("/v1/models", ModelList(state), methods=["GET"])
    yield Route("/v1/models/{name:path}", OneModel(state), methods=["GET"])
