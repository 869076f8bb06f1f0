"""Drives a running server with the official openai and anthropic packages and with litellm."""

import os
import time

import anthropic
import litellm
import openai
from pydantic import BaseModel, Field

BASE = os.environ["BASE_URL"]
KEY = os.environ["PERILUNE_KEY"]
MODEL = "kimi-k2-thinking"
MESSAGES = [{"role": "user", "content": "Name a city."}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}},
    "required": ["city"],
    "additionalProperties": False,
}
NO_THINKING = {"thinking": {"type": "disabled"}}


class City(BaseModel):
    """A typed answer."""

    name: str = Field(max_length=8)
    big: bool


def check(name, condition, shown=""):
    """Say what was checked, or stop."""
    if not condition:
        raise SystemExit(f"FAILED {name}: {shown}")
    print(f"ok     {name}")


def openai_chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=16, seed=1)
    check("openai chat", answer.choices[0].finish_reason in ("stop", "length"), answer)
    check("openai usage", answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens)
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=16, seed=1, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check("openai stream is the same text", text == (answer.choices[0].message.content or ""), text)
    check("openai stream usage", chunks[-1].usage.completion_tokens == answer.usage.completion_tokens)
    models = [model.id for model in client.models.list()]
    check("openai models", models == ["kimi-k2-thinking", "kimi-k2-thinking-turbo"], models)
    raw = client.completions.create(model=MODEL, prompt="Once", max_tokens=5)
    check("openai completions", raw.usage.completion_tokens <= 5, raw)


def openai_tools(client):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True}}
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=[tool], tool_choice="required", seed=3, extra_body=NO_THINKING
    )
    message = answer.choices[0].message
    check("openai tool call", answer.choices[0].finish_reason == "tool_calls", answer)
    call = message.tool_calls[0]
    history = MESSAGES + [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    again = client.chat.completions.create(model=MODEL, messages=history, tools=[tool], max_tokens=8)
    check("openai tool result goes back", again.usage.prompt_tokens > answer.usage.prompt_tokens)
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, tools=[tool], tool_choice="required", seed=3, extra_body=NO_THINKING
    ) as stream:
        final = stream.get_final_completion()
    same = [c.function.arguments for c in final.choices[0].message.tool_calls]
    check("openai streamed tool calls are the same", same == [c.function.arguments for c in message.tool_calls], same)


def openai_parse(client):
    answer = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=City, seed=2, extra_body=NO_THINKING
    )
    check("openai parse into a typed object", isinstance(answer.choices[0].message.parsed, City), answer)


def openai_errors(client):
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "robot", "content": "x"}])
        check("openai bad role", False)
    except openai.BadRequestError as error:
        check("openai bad role", error.body["param"] == "messages[0].role", error.body)
    try:
        client.chat.completions.create(model="gpt-nothing", messages=MESSAGES)
        check("openai unknown model", False)
    except openai.NotFoundError as error:
        check("openai unknown model", error.body["code"] == "model_not_found", error.body)
    try:
        openai.OpenAI(base_url=f"{BASE}/v1", api_key="sk-wrong").models.list()
        check("openai wrong key", False)
    except openai.AuthenticationError:
        check("openai wrong key", True)
    limited = openai.OpenAI(base_url=f"{BASE}/v1", api_key=os.environ["LIMITED_KEY"], max_retries=0)
    limited.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1)
    try:
        limited.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1)
        check("openai rate limit", False)
    except openai.RateLimitError as error:
        wait = int(error.response.headers["retry-after"])
        check("openai rate limit", 1 <= wait <= 60, wait)
    since = time.monotonic()
    limited.with_options(max_retries=1).chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1)
    check("openai retries after Retry-After", time.monotonic() - since > wait - 2)


def anthropic_all():
    client = anthropic.Anthropic(base_url=BASE, api_key=KEY)
    answer = client.messages.create(model=MODEL, max_tokens=16, messages=MESSAGES, extra_body={"temperature": 0})
    check("anthropic messages", answer.stop_reason in ("end_turn", "max_tokens"), answer)
    with client.messages.stream(model=MODEL, max_tokens=16, messages=MESSAGES, extra_body={"temperature": 0}) as stream:
        final = stream.get_final_message()
    plain = [(block.type, getattr(block, "text", None)) for block in answer.content]
    check("anthropic stream is the same", plain == [(b.type, getattr(b, "text", None)) for b in final.content], final)
    counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES)
    whole = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    check("anthropic count_tokens", counted.input_tokens == whole, (counted, answer.usage))
    tool = {"name": "get_weather", "input_schema": PARAMETERS}
    options = {"thinking": {"type": "disabled"}, "tool_choice": {"type": "any"}, "tools": [tool]}
    with client.messages.stream(model=MODEL, max_tokens=2000, messages=MESSAGES, **options) as stream:
        called = stream.get_final_message()
    calls = [block for block in called.content if block.type == "tool_use"]
    check("anthropic tool call", called.stop_reason == "tool_use" and "city" in calls[0].input, called)
    try:
        client.messages.create(model="nothing", max_tokens=1, messages=MESSAGES)
        check("anthropic unknown model", False)
    except anthropic.NotFoundError as error:
        check("anthropic unknown model", error.body["error"]["type"] == "not_found_error", error.body)


def litellm_all():
    options = {"api_base": f"{BASE}/v1", "api_key": KEY, "max_tokens": 12, "seed": 4}
    answer = litellm.completion(model=f"openai/{MODEL}", messages=MESSAGES, **options)
    check("litellm chat", answer.usage.completion_tokens <= 12, answer)
    chunks = litellm.completion(model=f"openai/{MODEL}", messages=MESSAGES, stream=True, **options)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    check("litellm stream is the same", text == (answer.choices[0].message.content or ""), text)


def main():
    client = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY)
    openai_chat(client)
    openai_tools(client)
    openai_parse(client)
    anthropic_all()
    litellm_all()
    openai_errors(client)


if __name__ == "__main__":
    main()
