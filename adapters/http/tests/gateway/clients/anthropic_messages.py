"""The official `anthropic` client over /v1/messages: plain, streaming, tools, images, errors, token counting, models."""

import os

import anthropic

base, key = os.environ["GATEWAY"], os.environ["GATEWAY_KEY"]
client = anthropic.Anthropic(base_url=base, api_key=key, max_retries=0)
user = lambda content: [{"role": "user", "content": content}]
TOOL = {"name": "weather", "description": "the weather", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
ask = lambda prompt, **more: client.messages.create(model="coder", max_tokens=50, messages=user(prompt), **more)

answer = ask("hi", system="be kind")
assert answer.content[0].text == "hello from the model" and answer.stop_reason == "end_turn", answer
# What is read excludes the cache in this format.
assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == (7, 4, 7), answer.usage

with client.messages.stream(model="coder", max_tokens=50, messages=user("hi")) as stream:
    pieces = list(stream.text_stream)
    final = stream.get_final_message()
assert "".join(pieces) == "hello from the model" == final.content[0].text and len(pieces) > 1, pieces
assert final.usage.output_tokens == 7 and final.stop_reason == "end_turn", final

asked = ask("weather", tools=[TOOL])
calls = [block for block in asked.content if block.type == "tool_use"]
assert asked.stop_reason == "tool_use" and [c.input["city"] for c in calls] == ["Oslo", "Rome"], asked
told = user("weather") + [{"role": "assistant", "content": asked.content}] + user(
    [{"type": "tool_result", "tool_use_id": c.id, "content": "rain"} for c in calls])
assert client.messages.create(model="coder", max_tokens=50, messages=told, tools=[TOOL]).content[0].text == "the tool said rain"
with client.messages.stream(model="coder", max_tokens=50, messages=user("weather"), tools=[TOOL]) as stream:
    streamed = [block for block in stream.get_final_message().content if block.type == "tool_use"]
assert [c.input["city"] for c in streamed] == ["Oslo", "Rome"], streamed

pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
seen = ask([{"type": "text", "text": "what is this"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": pixel}}])
assert seen.content[0].text == "1 picture", seen

assert client.messages.count_tokens(model="coder", messages=user("hi")).input_tokens == 42

for prompt, status in [("refuse", 400), ("overflow", 400), ("busy", 503), ("cut", 502)]:
    for stream in (False, True):
        try:
            ask(prompt, stream=stream)
            raise SystemExit(f"{prompt} was not refused")
        except anthropic.APIStatusError as error:
            assert error.status_code == status and "the script says so" in str(error), error
            assert error.body["type"] == "error", error.body
before = ""
try:
    for event in ask("break", stream=True):
        before += event.delta.text if event.type == "content_block_delta" else ""
    raise SystemExit("a stream that broke off was taken for an answer")
except anthropic.APIError as error:
    assert "the script breaks off" in str(error) and error.body["type"] == "error", error
assert before == "hello from the model", before
try:
    anthropic.Anthropic(base_url=base, api_key="wrong", max_retries=0).messages.create(
        model="coder", max_tokens=5, messages=user("hi"))
    raise SystemExit("a wrong key was taken")
except anthropic.AuthenticationError as error:
    assert "not known" in str(error), error

assert "coder" in [model.id for model in client.models.list()]
print("ok")
