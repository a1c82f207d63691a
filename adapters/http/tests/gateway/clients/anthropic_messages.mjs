// The official `@anthropic-ai/sdk` client of Node: messages, plain, streaming, tools, images, token counting, errors, whole and streamed.
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

const data = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const shown = [
  { type: "text", text: "what is this" },
  { type: "image", source: { type: "base64", media_type: "image/png", data } },
];
assert.equal((await client.messages.create(turn(shown))).content[0].text, "1 picture");
assert.equal(await client.messages.stream(turn([...shown, shown[1]])).finalText(), "2 picture");

for (const stream of [false, true]) {
  await assert.rejects(client.messages.create({ ...turn("refuse"), stream }), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError && error.message.includes("the script says so"), String(error));
    return true;
  });
}

let before = "";
const broken = async () => {
  for await (const event of await client.messages.create({ ...turn("break"), stream: true })) {
    if (event.type === "content_block_delta") before += event.delta.text;
  }
};
await assert.rejects(broken, (error) => {
  assert.ok(error instanceof Anthropic.APIError && error.message.includes("the script breaks off"), String(error));
  assert.equal(error.error.type, "error");
  return true;
});
assert.equal(before, "hello from the model");
console.log("ok");
