// The official `openai` client of Node: chat completions, plain, streaming, tools, errors.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { GATEWAY, GATEWAY_KEY } = process.env;
const client = new OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: GATEWAY_KEY, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const tools = [{
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } },
}];

const answer = await client.chat.completions.create({ model: "coder", messages: user("hi") });
assert.equal(answer.choices[0].message.content, "hello from the model");
assert.equal(answer.usage.total_tokens, 18);

let text = "";
for await (const chunk of await client.chat.completions.create({ model: "coder", messages: user("hi"), stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(text, "hello from the model");

const runner = client.chat.completions.stream({ model: "coder", messages: user("weather"), tools });
const calls = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments).city), ["Oslo", "Rome"]);

await assert.rejects(client.chat.completions.create({ model: "coder", messages: user("refuse") }), (error) => {
  assert.ok(error instanceof OpenAI.BadRequestError && error.message.includes("the script says so"), String(error));
  return true;
});
assert.ok((await client.models.list()).data.some((model) => model.id === "coder"));
console.log("ok");
