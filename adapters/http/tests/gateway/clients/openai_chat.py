"""The official `openai` client over /v1/chat/completions: plain, streaming, tools, images, errors, models."""

import json
import os

import openai

base, key = os.environ["GATEWAY"], os.environ["GATEWAY_KEY"]
client = openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0)
user = lambda content: [{"role": "user", "content": content}]
TOOL = {"type": "function", "function": {"name": "weather", "description": "the weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}

answer = client.chat.completions.create(model="coder", messages=user("hi"), max_tokens=50)
assert answer.choices[0].message.content == "hello from the model", answer
assert answer.choices[0].finish_reason == "stop" and answer.object == "chat.completion" and answer.id, answer
assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 7), answer.usage
assert answer.usage.prompt_tokens_details.cached_tokens == 4, answer.usage

pieces, usage = [], None
with client.chat.completions.create(model="coder", messages=user("hi"), stream=True,
                                    stream_options={"include_usage": True}) as stream:
    for chunk in stream:
        pieces += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage or usage
assert "".join(pieces) == "hello from the model" and len([p for p in pieces if p]) > 1, pieces
assert usage.completion_tokens == 7, usage

plain = list(client.chat.completions.create(model="coder", messages=user("hi"), stream=True))
assert all(chunk.choices for chunk in plain), "no chunk without a choice where none was asked for"

asked = client.chat.completions.create(model="coder", messages=user("weather"), tools=[TOOL])
calls = asked.choices[0].message.tool_calls
assert asked.choices[0].finish_reason == "tool_calls", asked
assert [(c.id, c.function.name, json.loads(c.function.arguments)["city"]) for c in calls] == [
    ("call_1", "weather", "Oslo"), ("call_2", "weather", "Rome")], calls
told = user("weather") + [asked.choices[0].message] + [
    {"role": "tool", "tool_call_id": c.id, "content": "rain"} for c in calls]
assert client.chat.completions.create(model="coder", messages=told, tools=[TOOL]).choices[0].message.content == "the tool said rain"

with client.chat.completions.stream(model="coder", messages=user("weather"), tools=[TOOL]) as stream:
    stream.until_done()
    streamed = stream.get_final_completion().choices[0].message.tool_calls
assert [json.loads(c.function.arguments)["city"] for c in streamed] == ["Oslo", "Rome"], streamed

pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
seen = client.chat.completions.create(model="coder", messages=user([
    {"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": pixel}}]))
assert seen.choices[0].message.content == "1 picture", seen

before = ""
try:
    for chunk in client.chat.completions.create(model="coder", messages=user("break"), stream=True):
        before += "".join(choice.delta.content or "" for choice in chunk.choices)
    raise SystemExit("a stream that broke off was taken for an answer")
except openai.APIError as error:
    assert "the script breaks off" in error.message, error
assert before == "hello from the model", before

for prompt, kind, status in [("refuse", openai.BadRequestError, 400), ("overflow", openai.BadRequestError, 400),
                             ("busy", openai.InternalServerError, 503), ("cut", openai.InternalServerError, 502)]:
    for stream in (False, True):
        try:
            client.chat.completions.create(model="coder", messages=user(prompt), stream=stream)
            raise SystemExit(f"{prompt} was not refused")
        except kind as error:
            assert error.status_code == status and "the script says so" in str(error), error
try:
    openai.OpenAI(base_url=f"{base}/v1", api_key="wrong", max_retries=0).models.list()
    raise SystemExit("a wrong key was taken")
except openai.AuthenticationError as error:
    assert "not known" in str(error), error
try:
    client.chat.completions.create(model="nobody/nothing", messages=user("hi"))
except openai.NotFoundError:
    pass

names = [model.id for model in client.models.list()]
assert "coder" in names and "translated/scripted-1" in names, names
print("ok")
