"""Check the prompts of crates/chat/tests/documents/template/*.md against Jinja2 and Python's json.

The published rules of the chat template are written here once more, as a Jinja template in the environment
that the model's users run it in (trim_blocks, lstrip_blocks, tojson without escaping), with the renumbering of
tool-call ids in Python. It shares nothing with the Rust renderer.

    pip install jinja2
    python3 tools/oracle/chat_template.py [--write] [--typescript PATH] FILES

--write replaces the prompts in the files. --typescript names a copy of the published tool_declaration_ts.py;
without it, cases with that tool form are counted as skipped. Cases that start from an `anthropic` body are not
checked here.
"""

import argparse
import copy
import importlib.util
import json
import re
import sys

import jinja2

TEMPLATE = """
{%- macro text(message) -%}
  {%- set c = message.get('content') -%}
  {%- if c is string -%}{{ c }}
  {%- elif c is not none -%}{%- for part in c -%}{{ part['text'] }}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- macro header(message) -%}
  {%- if message['role'] == 'user' -%}<|im_user|>
  {%- elif message['role'] == 'assistant' -%}<|im_assistant|>
  {%- else -%}<|im_system|>
  {%- endif -%}
  {{ message.get('name') or message['role'] }}<|im_middle|>
{%- endmacro -%}
{%- macro calls(message) -%}
  <|tool_calls_section_begin|>
  {%- for call in message['tool_calls'] -%}
    {%- set a = call['function']['arguments'] -%}
    <|tool_call_begin|>{{ call['id'] }}<|tool_call_argument_begin|>
    {%- if a is string -%}{{ a }}{%- else -%}{{ a | tojson }}{%- endif -%}
    <|tool_call_end|>
  {%- endfor -%}
  <|tool_calls_section_end|>
{%- endmacro -%}
{%- set last = namespace(answer=-1) -%}
{%- if not preserve_thinking -%}
  {%- for m in messages -%}
    {%- if m['role'] == 'assistant' and not m.get('tool_calls') and not m.get('partial') -%}
      {%- set last.answer = loop.index0 -%}
    {%- endif -%}
  {%- endfor -%}
{%- endif -%}
{%- if tools -%}
  <|im_system|>tool_declare<|im_middle|>
  {%- if tools_ts -%}{{ tools_ts }}{%- else -%}{{ tools | tojson(separators=(',', ':')) }}{%- endif -%}
  <|im_end|>
{%- endif -%}
{%- if default_system and (not messages or messages[0]['role'] != 'system') -%}
  <|im_system|>system<|im_middle|>{{ default_system }}<|im_end|>
{%- endif -%}
{%- for m in messages -%}
  {{ header(m) }}
  {%- if m['role'] == 'assistant' -%}
    {%- if not (m.get('partial') and bare_partial) -%}
      <think>{%- if loop.index0 > last.answer -%}{{ m.get('reasoning_content') or '' }}{%- endif -%}</think>
    {%- endif -%}
    {{ text(m) }}
    {%- if m.get('tool_calls') -%}{{ calls(m) }}{%- endif -%}
  {%- elif m['role'] == 'tool' -%}
    {{ '## Return of ' + m['tool_call_id'] + '\n' }}{{ text(m) }}
  {%- else -%}
    {{ text(m) }}
  {%- endif -%}
  {%- if not m.get('partial') -%}<|im_end|>{%- endif -%}
{%- endfor -%}
{%- if generation_prompt and not (messages and messages[-1].get('partial')) -%}
  <|im_assistant|>assistant<|im_middle|>
  {%- if thinking is sameas false -%}<think></think>
  {%- elif think_prefill -%}<think>
  {%- endif -%}
{%- endif -%}
"""


def environment():
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
                             extensions=["jinja2.ext.loopcontrols"])

    def tojson(value, separators=None):
        return json.dumps(value, ensure_ascii=False, separators=separators)

    env.filters["tojson"] = tojson
    return env


def renumber(messages):
    """Every call gets functions.NAME:N, N counted over the dialogue; results follow their calls."""
    messages = copy.deepcopy(messages)
    calls, turn_start = [], 0
    for message in messages:
        if message["role"] == "developer":
            message["role"] = "system"
        if "reasoning" in message and message.get("reasoning_content") is None:
            message["reasoning_content"] = message["reasoning"]
        if message.get("tool_calls"):
            turn_start = len(calls)
            for call in message["tool_calls"]:
                old = call.get("id") or ""
                call["id"] = f"functions.{call['function']['name']}:{len(calls)}"
                if call["function"].get("arguments") is None:
                    call["function"]["arguments"] = "{}"
                calls.append([old, call["id"], False])
        if message["role"] == "tool":
            old = message.get("tool_call_id")
            ordered = calls[turn_start:] + calls[:turn_start]
            open_ = [c for c in ordered if not c[2] and (not old or c[0] == old)]
            call = open_[0] if open_ else [c for c in calls if c[0] == old][-1]
            call[2] = True
            message["tool_call_id"] = call[1]
    return messages


def deep_sorted(value):
    if isinstance(value, dict):
        return {k: deep_sorted(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [deep_sorted(v) for v in value]
    return value


def render(body, options, typescript):
    kwargs = body.get("chat_template_kwargs") or {}
    thinking = kwargs.get("thinking")
    if body.get("thinking"):
        thinking = body["thinking"]["type"] == "enabled"
    keep = (body.get("thinking") or {}).get("keep") == "all" or kwargs.get("preserve_thinking", False)
    tools, tools_ts = body.get("tools"), None
    if options.get("tool_form") == "typescript" and tools:
        tools = deep_sorted(tools)
        try:
            tools_ts = typescript.encode_tools_to_typescript_style(tools)
        except Exception:
            tools_ts = None
    template = environment().from_string(TEMPLATE)
    default = "You are Kimi, an AI assistant created by Moonshot AI."
    return template.render(
        messages=renumber(body["messages"]), tools=tools, tools_ts=tools_ts,
        default_system=options.get("default_system", default), thinking=thinking, preserve_thinking=keep,
        think_prefill=options.get("think_prefill", False), bare_partial=options.get("partial_form") == "bare",
        generation_prompt=options.get("generation_prompt", True))


FENCE = re.compile(r"^```(\w+)\n(.*?)\n?^```$", re.S | re.M)


def cases(document):
    """The text of each heading; a `## ` inside a fence is no heading."""
    starts, in_fence, at = [0], False, 0
    for line in document.splitlines(keepends=True):
        if line.startswith("```"):
            in_fence = not in_fence
        elif line.startswith("## ") and not in_fence:
            starts.append(at)
        at += len(line)
    return [document[a:b] for a, b in zip(starts, starts[1:] + [None])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--typescript")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    typescript = None
    if args.typescript:
        spec = importlib.util.spec_from_file_location("tool_declaration_ts", args.typescript)
        typescript = importlib.util.module_from_spec(spec)
        sys.modules["tool_declaration_ts"] = typescript
        spec.loader.exec_module(typescript)
    n_equal = n_differ = n_skipped = 0
    for path in args.files:
        document = open(path, encoding="utf-8").read()
        for case in cases(document):
            blocks = dict(FENCE.findall(case))
            if "request" not in blocks or "prompt" not in blocks:
                continue
            options = json.loads(blocks.get("options", "{}"))
            if options.get("tool_form") == "typescript" and typescript is None:
                n_skipped += 1
                continue
            found = render(json.loads(blocks["request"]), options, typescript)
            if found == blocks["prompt"]:
                n_equal += 1
                continue
            n_differ += 1
            if args.write:
                old = f"```prompt\n{blocks['prompt']}\n```" if blocks["prompt"] else "```prompt\n```"
                document = document.replace(case, case.replace(old, f"```prompt\n{found}\n```"))
            else:
                print(f"{path}: {case.splitlines()[0]}\n  document: {blocks['prompt']!r}\n  oracle:   {found!r}")
        if args.write:
            open(path, "w", encoding="utf-8").write(document)
    print(f"{n_equal} equal, {n_differ} {'rewritten' if args.write else 'different'}, {n_skipped} skipped")
    sys.exit(1 if n_differ and not args.write else 0)


if __name__ == "__main__":
    main()
