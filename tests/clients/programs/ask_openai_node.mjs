// node ask_openai_node.mjs URL PROMPT TOKENS: the package `openai` of npm.
// NODE_MODULES names the folder that it is installed in.

import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const OpenAI = require("openai");
const [url, prompt, tokens] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const usage = { stream: true, stream_options: { include_usage: true } };
const chat = {
  model: "ensemble",
  messages: [{ role: "user", content: prompt }],
  max_completion_tokens: Number(tokens),
  temperature: 0,
};
const text = { model: "ensemble", prompt, max_tokens: Number(tokens), temperature: 0 };
const response = {
  model: "ensemble",
  input: prompt,
  max_output_tokens: Number(tokens),
  temperature: 0,
  store: false,
};

const answer = (said, finish_reason, used) => ({
  text: said,
  finish_reason,
  usage: [used.prompt_tokens, used.completion_tokens, used.total_tokens],
});

const whole = ({ choices: [choice], usage: used }) =>
  answer(choice.message?.content ?? choice.text, choice.finish_reason, used);

async function streamed(stream) {
  let said = "";
  let last;
  for await (const chunk of await stream) {
    for (const choice of chunk.choices) {
      said += choice.delta?.content ?? choice.text ?? "";
      last = choice.finish_reason ?? last;
    }
    if (chunk.usage) return answer(said, last, chunk.usage);
  }
}

const response_answer = ({ output_text, incomplete_details, usage: used }) => ({
  text: output_text,
  finish_reason: incomplete_details.reason === "max_output_tokens" ? "length" : "stop",
  usage: [used.input_tokens, used.output_tokens, used.total_tokens],
});

async function response_streamed() {
  let said = "";
  for await (const event of await client.responses.create({ ...response, stream: true })) {
    if (event.type === "response.output_text.delta") said += event.delta;
    if (event.type === "response.incomplete") {
      return response_answer({ ...event.response, output_text: said });
    }
  }
}

async function failed(call) {
  try {
    await call;
  } catch (error) {
    return { class: error.constructor.name, param: error.param, code: error.code };
  }
  throw new Error("it is answered");
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    models,
    answers: {
      chat: whole(await client.chat.completions.create(chat)),
      "chat stream": await streamed(client.chat.completions.create({ ...chat, ...usage })),
      "chat stream helper": whole(
        await client.chat.completions.stream({ ...chat, ...usage }).finalChatCompletion(),
      ),
      text: whole(await client.completions.create(text)),
      "text stream": await streamed(client.completions.create({ ...text, ...usage })),
      response: response_answer(await client.responses.create(response)),
      "response stream": await response_streamed(),
    },
    errors: {
      model: await failed(client.chat.completions.create({ ...chat, model: "nobody" })),
      temperature: await failed(client.chat.completions.create({ ...chat, temperature: -1 })),
    },
  }),
);
