# SPDX-License-Identifier: Apache-2.0
"""POST /v1/chat/completions."""

from trellis.gateway.metrics.record import record_of
from trellis.gateway.openai.asking import read_inputs
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.chat_writer import ChatWriter
from trellis.gateway.openai.endpoint import Endpoint, request_id
from trellis.gateway.openai.generation import Generation
from trellis.gateway.openai.jobs import Prompt
from trellis.gateway.openai.messages import chat_prompt, effort_arguments
from trellis.gateway.openai.parsing import check_tools, plan_answer
from trellis.gateway.openai.served import find_served
from trellis.gateway.openai.tools import plan_tools
from trellis.gateway.sending import Client, Scope


class ChatCompletions(Endpoint):
    """The endpoint."""

    name = "/v1/chat/completions"

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        asked = await self.read(ChatRequest, body)
        log_probs, streams, n = asked.log_probs, asked.streams, asked.n or 1
        constraint = asked.constraint
        tools = plan_tools(asked.tools, asked.tool_choice, asked.parallel_tool_calls)
        record = record_of(scope)
        served = await find_served(self.state, asked.model, record)
        check_tools(served, tools)
        continued = bool(asked.continue_final_message)
        begins = (
            not continued if asked.add_generation_prompt is None else asked.add_generation_prompt
        )
        arguments = {
            **effort_arguments(served, asked.reasoning_effort),
            **(asked.chat_template_kwargs or {}),
        }
        with record.timed("encode"):
            text, ids = await chat_prompt(
                self.state,
                served,
                asked.messages,
                begins,
                continued,
                arguments,
                tools=tools.shown,
            )
        most = asked.most_tokens or served.room(len(ids), n, client.allowance.most)
        inputs = read_inputs(served, asked, most, log_probs, streams)
        with record.timed("constrain" if constraint or tools.use else "plan"):
            parsing, held = await plan_answer(self.state, served, asked, tools, constraint, text)
            if held is not None:
                inputs.hold_to(served, held)
        generation = Generation(self.state, served, record)
        prompts = [Prompt(ids, text)]
        await generation.prepare(prompts, n, inputs, log_probs, streams, parsing)
        made_id = request_id(scope)
        writer = ChatWriter(f"chatcmpl-{made_id}", asked, generation)
        await generation.run(client, writer, streams)
