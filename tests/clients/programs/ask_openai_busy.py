"""python ask_openai_busy.py URL PROMPT TOKENS: what the package `openai` does at a full queue.

The server holds one prompt, and one more waits. The first answer begins, the second waits: a third
request is rejected, and is sent again by the client until there is room.
"""

import asyncio
import json
import sys
from typing import Any

import openai

url, prompt, tokens = sys.argv[1:]
LONG = 1500  # tokens of the answers that are in the way; they are left long before
asked: Any = {"model": "ensemble", "prompt": prompt, "temperature": 0}
endless: Any = {**asked, "max_tokens": LONG, "stream": True, "extra_body": {"ignore_eos": True}}


async def main() -> dict[str, Any]:
    """What came of the third request, without sending it again and with it."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        create = client.completions.create
        first = await create(**endless)
        await anext(first)
        second = asyncio.create_task(create(**endless))
        await asyncio.sleep(4)  # for it to wait in line, on a busy machine, too
        found = {"rejected": await rejected(client)}
        patient = client.with_options(max_retries=5).completions.with_raw_response
        third = asyncio.create_task(patient.create(**asked, max_tokens=int(tokens)))
        await asyncio.sleep(0.5)
        await first.close()
        second.cancel()
        raw = await third
    return found | {"text": raw.parse().choices[0].text, "retries": raw.retries_taken}


async def rejected(client: openai.AsyncOpenAI) -> dict[str, Any]:
    """The error of a request that there is no room for."""
    try:
        await client.completions.create(**asked, max_tokens=int(tokens))
    except openai.APIStatusError as error:
        after = error.response.headers["retry-after"]
        return {"class": type(error).__name__, "status": error.status_code, "after": after}
    raise AssertionError("there was room")


print(json.dumps(asyncio.run(main())))
