// The official `openai` client of Node: responses, plain, streaming, tools, images, errors, whole and streamed.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { GATEWAY, GATEWAY_KEY } = process.env;
const client = new OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: GATEWAY_KEY, maxRetries: 0 });
const turn = (input) => ({ model: "coder", input, store: false });
const tools = [{
  type: "function",
  name: "weather",
  strict: false,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
}];

const answer = await client.responses.create(turn("hi"));
assert.equal(answer.output_text, "hello from the model");
assert.deepEqual([answer.status, answer.usage.input_tokens, answer.usage.output_tokens], ["completed", 11, 7]);

const deltas = [];
const stream = client.responses.stream(turn("hi")).on("response.output_text.delta", (event) => deltas.push(event.delta));
assert.equal((await stream.finalResponse()).output_text, "hello from the model");
assert.ok(deltas.length > 1 && deltas.join("") === "hello from the model", deltas.join("|"));

const asked = await client.responses.stream({ ...turn("weather"), tools }).finalResponse();
const calls = asked.output.filter((item) => item.type === "function_call");
assert.deepEqual(calls.map((call) => JSON.parse(call.arguments).city), ["Oslo", "Rome"]);
const results = calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: "rain" }));
// What the helper adds for its users is no part of an item.
const items = asked.output.map(({ parsed_arguments, ...item }) => item);
const told = await client.responses.create({ ...turn([{ role: "user", content: "weather" }, ...items, ...results]), tools });
assert.equal(told.output_text, "the tool said rain");

const pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const picture = { type: "input_image", image_url: pixel, detail: "auto" };
const shown = [{ role: "user", content: [{ type: "input_text", text: "what is this" }, picture] }];
assert.equal((await client.responses.create(turn(shown))).output_text, "1 picture");

for (const stream of [false, true]) {
  await assert.rejects(client.responses.create({ ...turn("refuse"), stream }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError && error.message.includes("the script says so"), String(error));
    return true;
  });
}

let before = "";
let failed;
try {
  for await (const event of await client.responses.create({ ...turn("break"), stream: true })) {
    if (event.type === "response.output_text.delta") before += event.delta;
    if (event.type === "response.failed") failed = event.response.error.message;
    assert.notEqual(event.type, "response.completed");
  }
} catch (error) {
  assert.ok(error instanceof OpenAI.APIError, String(error));
  failed = error.message;
}
assert.equal(before, "hello from the model");
assert.ok(failed?.includes("the script breaks off"), String(failed));
console.log("ok");
