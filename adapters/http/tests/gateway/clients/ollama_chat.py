"""The official `ollama` client over /api/chat, /api/generate and /api/show: plain, streaming, tools, images, errors, models."""

import os

import ollama

base, key = os.environ["GATEWAY"], os.environ["GATEWAY_KEY"]
client = ollama.Client(host=base, headers={"authorization": f"Bearer {key}"})
MODEL = "another/scripted-2"
user = lambda content: [{"role": "user", "content": content}]


def weather(city: str) -> str:
    """The weather.

    Args:
      city: where
    """
    return "rain"


answer = client.chat(model=MODEL, messages=user("hi"), options={"num_predict": 50, "temperature": 0.5})
assert answer.message.content == "hello from the model" and answer.message.role == "assistant", answer
assert answer.done and answer.done_reason == "stop" and answer.model == "scripted-2" or answer.model == MODEL, answer
assert (answer.prompt_eval_count, answer.eval_count) == (11, 7), answer

pieces = list(client.chat(model=MODEL, messages=user("hi"), stream=True))
assert "".join(piece.message.content or "" for piece in pieces) == "hello from the model", pieces
assert len(pieces) > 2 and [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True], pieces
assert pieces[-1].eval_count == 7 and pieces[-1].done_reason == "stop", pieces[-1]

asked = client.chat(model=MODEL, messages=user("weather"), tools=[weather])
calls = asked.message.tool_calls
assert [(c.function.name, c.function.arguments) for c in calls] == [
    ("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})], calls
told = user("weather") + [asked.message] + [
    {"role": "tool", "tool_name": c.function.name, "content": weather(**c.function.arguments)} for c in calls]
assert client.chat(model=MODEL, messages=told, tools=[weather]).message.content == "the tool said rain"

streamed = [c for piece in client.chat(model=MODEL, messages=user("weather"), tools=[weather], stream=True)
            for c in piece.message.tool_calls or []]
assert [c.function.arguments["city"] for c in streamed] == ["Oslo", "Rome"], streamed

pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
seen = client.chat(model=MODEL, messages=[{"role": "user", "content": "what is this", "images": [pixel]}])
assert seen.message.content == "1 picture", seen

before = ""
try:
    for piece in client.chat(model=MODEL, messages=user("break"), stream=True):
        before += piece.message.content or ""
    raise SystemExit("a stream that broke off was taken for an answer")
except ollama.ResponseError as error:
    assert "the script breaks off" in error.error, error
assert before == "hello from the model", before

for prompt, status in [("refuse", 400), ("overflow", 400), ("busy", 503), ("cut", 502)]:
    for stream in (False, True):
        try:
            answer = client.chat(model=MODEL, messages=user(prompt), stream=stream)
            list(answer) if stream else None
            raise SystemExit(f"{prompt} was not refused")
        except ollama.ResponseError as error:
            assert error.status_code == status and "the script says so" in error.error, error
try:
    ollama.Client(host=base, headers={"authorization": "Bearer wrong"}).list()
    raise SystemExit("a wrong key was taken")
except ollama.ResponseError as error:
    assert error.status_code == 401 and "not known" in error.error, error

answer = client.generate(model=MODEL, prompt="hi", system="be brief", options={"num_predict": 50})
assert answer.response == "hello from the model" and answer.done and answer.done_reason == "stop", answer
assert (answer.prompt_eval_count, answer.eval_count) == (11, 7), answer
pieces = list(client.generate(model=MODEL, prompt="hi", stream=True))
assert "".join(piece.response or "" for piece in pieces) == "hello from the model" and len(pieces) > 2, pieces
assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True], pieces
assert client.generate(model=MODEL, prompt="what is this", images=[pixel]).response == "1 picture"
for refused, status, said in [
    (dict(prompt="busy"), 503, "the script says so"),
    (dict(prompt="hi", raw=True), 400, "/api/chat"),
    (dict(prompt=""), 400, "`prompt` is missing"),
]:
    try:
        client.generate(model=MODEL, **refused)
        raise SystemExit(f"{refused} was not refused")
    except ollama.ResponseError as error:
        assert error.status_code == status and said in error.error, error

shown = client.show(MODEL)
assert "completion" in shown.capabilities and "tools" in shown.capabilities, shown
assert shown.modelinfo["helix.context_length"] > 0, shown

names = [model.model for model in client.list().models]
assert "coder" in names and MODEL in names, names
print("ok")
