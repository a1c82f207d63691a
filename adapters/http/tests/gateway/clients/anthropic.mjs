// The official `@anthropic-ai/sdk` client of Node: messages, plain, streaming, tools, errors, token counting.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const { GATEWAY, GATEWAY_KEY } = process.env;
const client = new Anthropic({ baseURL: GATEWAY, apiKey: GATEWAY_KEY, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const tools = [{
  name: "weather",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
}];
const turn = (content) => ({ model: "coder", max_tokens: 50, messages: user(content) });

const answer = await client.messages.create(turn("hi"));
assert.equal(answer.content[0].text, "hello from the model");
assert.equal(answer.usage.output_tokens, 7);

const final = await client.messages.stream({ ...turn("weather"), tools }).finalMessage();
const calls = final.content.filter((block) => block.type === "tool_use");
assert.deepEqual(calls.map((call) => call.input.city), ["Oslo", "Rome"]);
assert.equal(final.stop_reason, "tool_use");

assert.equal((await client.messages.countTokens({ model: "coder", messages: user("hi") })).input_tokens, 42);
await assert.rejects(client.messages.create(turn("refuse")), (error) => {
  assert.ok(error instanceof Anthropic.BadRequestError && error.message.includes("the script says so"), String(error));
  return true;
});
console.log("ok");
