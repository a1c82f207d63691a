// The official `openai` client of Node: chat completions, plain, streaming, tools, images, errors, whole and streamed.
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

const pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const shown = [{ type: "text", text: "what is this" }, { type: "image_url", image_url: { url: pixel } }];
const seen = await client.chat.completions.create({ model: "coder", messages: user(shown) });
assert.equal(seen.choices[0].message.content, "1 picture");
const seenAgain = await client.chat.completions.stream({ model: "coder", messages: user([...shown, shown[1]]) }).finalContent();
assert.equal(seenAgain, "2 picture");

for (const stream of [false, true]) {
  await assert.rejects(client.chat.completions.create({ model: "coder", messages: user("refuse"), stream }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError && error.message.includes("the script says so"), String(error));
    return true;
  });
}

let before = "";
const broken = async () => {
  for await (const chunk of await client.chat.completions.create({ model: "coder", messages: user("break"), stream: true })) {
    before += chunk.choices[0]?.delta?.content ?? "";
  }
};
await assert.rejects(broken, (error) => {
  assert.ok(error instanceof OpenAI.APIError && error.message.includes("the script breaks off"), String(error));
  return true;
});
assert.equal(before, "hello from the model");
assert.ok((await client.models.list()).data.some((model) => model.id === "coder"));
console.log("ok");
