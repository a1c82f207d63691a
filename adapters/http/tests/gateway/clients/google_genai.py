"""The official `google-genai` client: generateContent and its stream, tools, images, errors, token counting."""

import os

from google import genai
from google.genai import errors, types

base, key = os.environ["GATEWAY"], os.environ["GATEWAY_KEY"]
TOOL = types.Tool(function_declarations=[types.FunctionDeclaration(
    name="weather", description="the weather", parameters_json_schema={
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})])

for version in ("v1beta", "v1"):
    options = types.HttpOptions(base_url=base, api_version=version)
    client = genai.Client(api_key=key, vertexai=False, http_options=options)
    answer = client.models.generate_content(model="coder", contents="hi")
    assert answer.text == "hello from the model", answer
    used = answer.usage_metadata
    assert (used.prompt_token_count, used.cached_content_token_count, used.candidates_token_count) == (11, 4, 7), used
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP, answer

    pieces = [chunk.text or "" for chunk in client.models.generate_content_stream(model="coder", contents="hi")]
    assert "".join(pieces) == "hello from the model" and len(pieces) > 1, pieces

    config = types.GenerateContentConfig(
        tools=[TOOL], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True))
    asked = client.models.generate_content(model="coder", contents="weather", config=config)
    assert [(c.name, c.args["city"]) for c in asked.function_calls] == [("weather", "Oslo"), ("weather", "Rome")], asked
    results = [types.Part.from_function_response(name=c.name, response={"result": "rain"}) for c in asked.function_calls]
    told = [types.Content(role="user", parts=[types.Part.from_text(text="weather")]), asked.candidates[0].content,
            types.Content(role="user", parts=results)]
    assert "rain" in client.models.generate_content(model="coder", contents=told, config=config).text

    pixel = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")
    seen = client.models.generate_content(
        model="coder", contents=["what is this", types.Part.from_bytes(data=pixel, mime_type="image/png")])
    assert seen.text == "1 picture", seen

    assert client.models.count_tokens(model="coder", contents="hi").total_tokens == 42

    for prompt, kind, status in [("refuse", errors.ClientError, 400), ("busy", errors.ServerError, 503)]:
        try:
            client.models.generate_content(model="coder", contents=prompt)
            raise SystemExit(f"{prompt} was not refused")
        except kind as error:
            assert error.code == status and "the script says so" in str(error), error

    before = ""
    try:
        for chunk in client.models.generate_content_stream(model="coder", contents="break"):
            before += chunk.text or ""
        raise SystemExit("a stream that broke off was taken for an answer")
    except errors.APIError as error:
        assert "the script breaks off" in str(error), error
    assert before == "hello from the model", before
print("ok")
