"""The official `openai` client over /v1/responses: plain, streaming, tools, images, counting, errors."""

import json
import os

import openai

base, key = os.environ["GATEWAY"], os.environ["GATEWAY_KEY"]
client = openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0)
TOOL = {"type": "function", "name": "weather", "description": "the weather", "strict": False, "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}

answer = client.responses.create(model="coder", input="hi", store=False)
assert answer.output_text == "hello from the model" and answer.status == "completed", answer
assert (answer.usage.input_tokens, answer.usage.output_tokens) == (11, 7), answer.usage

with client.responses.stream(model="coder", input="hi", store=False) as stream:
    deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    final = stream.get_final_response()
assert "".join(deltas) == "hello from the model" == final.output_text and len(deltas) > 1, deltas

asked = client.responses.create(model="coder", input="weather", tools=[TOOL], store=False)
calls = [item for item in asked.output if item.type == "function_call"]
assert [(c.call_id, c.name, json.loads(c.arguments)["city"]) for c in calls] == [
    ("call_1", "weather", "Oslo"), ("call_2", "weather", "Rome")], calls
told = [{"role": "user", "content": "weather"}] + [item.model_dump(exclude_none=True) for item in asked.output] + [
    {"type": "function_call_output", "call_id": c.call_id, "output": "rain"} for c in calls]
assert client.responses.create(model="coder", input=told, tools=[TOOL], store=False).output_text == "the tool said rain"

pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
seen = client.responses.create(model="coder", store=False, input=[{"role": "user", "content": [
    {"type": "input_text", "text": "what is this"}, {"type": "input_image", "image_url": pixel, "detail": "auto"}]}])
assert seen.output_text == "1 picture", seen

counted = client.responses.input_tokens.count(model="coder", input="hi", instructions="be brief", tools=[TOOL])
assert (counted.object, counted.input_tokens) == ("response.input_tokens", 42), counted

for prompt, kind in [("refuse", openai.BadRequestError), ("busy", openai.InternalServerError)]:
    for stream in (False, True):
        try:
            client.responses.create(model="coder", input=prompt, stream=stream, store=False)
            raise SystemExit(f"{prompt} was not refused")
        except kind as error:
            assert "the script says so" in str(error), error

before, failed = "", None
try:
    for event in client.responses.create(model="coder", input="break", stream=True, store=False):
        before += event.delta if event.type == "response.output_text.delta" else ""
        failed = event.response.error.message if event.type == "response.failed" else failed
        assert event.type != "response.completed", event
except openai.APIError as error:
    failed = error.message
assert before == "hello from the model" and "the script breaks off" in (failed or ""), (before, failed)
print("ok")
