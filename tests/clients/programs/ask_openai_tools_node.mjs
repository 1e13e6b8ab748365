// node ask_openai_tools_node.mjs URL: tools and a form of the answer by the package `openai` of npm.
// NODE_MODULES names the folder that it is installed in.

import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const OpenAI = require("openai");
const { zodFunction, zodResponseFormat, zodTextFormat } = require("openai/helpers/zod");
const { z } = require("zod");
const [url] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const QUESTION = "What is the weather in Lima?";
const City = z.enum(["Lima", "Oslo", "Quito"]);
const Weather = z.object({ city: City, unit: z.enum(["celsius", "fahrenheit"]) });
const Report = z.object({ city: City, sky: z.enum(["clear", "cloudy", "rainy"]), windy: z.boolean(), warnings: z.array(z.enum(["storm", "flood"])).max(2) });
const tool = zodFunction({
  name: "Weather",
  description: "Tell the weather of a city.",
  parameters: Weather,
});
const asked = { model: "ensemble", temperature: 0 };
const chat = {
  ...asked,
  messages: [{ role: "user", content: QUESTION }],
  max_completion_tokens: 160,
};
const called = { ...chat, tools: [tool], tool_choice: "required", parallel_tool_calls: false };

const calls = ({ choices: [choice] }) => ({
  calls: choice.message.tool_calls.map(({ function: made }) => [made.name, made.arguments]),
  content: choice.message.content,
  finish_reason: choice.finish_reason,
});

// What the deltas of chunks add up to.
async function streamed() {
  const found = { calls: [], content: null, finish_reason: null };
  for await (const { choices } of await client.chat.completions.create({ ...called, stream: true })) {
    const [{ delta, finish_reason }] = choices;
    found.finish_reason = finish_reason ?? found.finish_reason;
    found.content = delta.content ?? found.content;
    for (const { index, function: made } of delta.tool_calls ?? []) {
      found.calls[index] ??= [made.name, ""];
      found.calls[index][1] += made.arguments;
    }
  }
  return found;
}

// The helper runs the tool itself: the model must call it once, and then answers.
async function run() {
  const told = [];
  const weather = zodFunction({
    name: "Weather",
    description: "Tell the weather of a city.",
    parameters: Weather,
    function: (parsed) => {
      told.push(parsed);
      return "Lima: 19 degrees, cloudy";
    },
  });
  const chosen = { type: "function", function: { name: "Weather" } };
  const runner = client.chat.completions.runTools({
    ...chat, tools: [weather], tool_choice: chosen,
  });
  await runner.done();
  return told;
}

const formed = await client.chat.completions.parse({
  ...chat,
  response_format: zodResponseFormat(Report, "report"),
});
const response = await client.responses.parse({
  ...asked,
  input: QUESTION,
  max_output_tokens: 160,
  text: { format: zodTextFormat(Report, "report") },
});

console.log(
  JSON.stringify({
    calls: {
      whole: calls(await client.chat.completions.create(called)),
      parsed: calls(await client.chat.completions.parse(called)),
      stream: await streamed(),
      "stream helper": calls(await client.chat.completions.stream(called).finalChatCompletion()),
    },
    told: await run(),
    formed: {
      chat: formed.choices[0].message.parsed,
      response: response.output_parsed,
    },
  }),
);
