"""Drives AgentDojo through `perilune serve` and says what AgentDojo's own judges find.

AgentDojo's tool loop and its OpenAI client talk to our server, which forwards to a scripted model in this process. The
model is told the published solution of each task: `faithful` does nothing else, `obeying` also does what an injected
instruction asks for, as soon as it has read it. So what is judged is the wire in between, with AgentDojo's tools,
results and texts, and that its judges tell the two models apart.
"""

import argparse
import contextlib
import functools
import json
import re
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import yaml
from agentdojo.agent_pipeline import (
    AgentPipeline,
    BasePipelineElement,
    InitQuery,
    OpenAILLM,
    SystemMessage,
    ToolsExecutionLoop,
    ToolsExecutor,
)
from agentdojo.attacks.attack_registry import load_attack
from agentdojo.benchmark import benchmark_suite_with_injections, benchmark_suite_without_injections
from agentdojo.functions_runtime import EmptyEnv
from agentdojo.logging import OutputLogger
from agentdojo.task_suite.load_suites import get_suites

MODEL = "scripted"

# AgentDojo reads its world anew for each of hundreds of episodes: libyaml reads the same many times as fast.
if yaml.__with_libyaml__:
    yaml.safe_load = functools.partial(yaml.load, Loader=yaml.CSafeLoader)


def plain(text):
    """Letters and digits only: results are YAML, which wraps and quotes lines as it likes."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def text_of(message):
    """A message's text, whichever form it has."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


class ScriptedModel:
    """Follows solutions; where it stands it reads from the request."""

    def __init__(self, obeys):
        self.obeys = obeys
        self.n_requests = 0
        self.n_obeyed = 0
        self.wrong = []
        self.solve([], "", {})

    def solve(self, calls, words, goals):
        """The task from now on: its calls, its last words, and for each injected goal what gives its calls and words."""
        self.calls, self.words = calls, words
        self.goals = {plain(goal): solution for goal, solution in goals.items()} if self.obeys else {}

    def answer(self, messages):
        """The next call, or the last words."""
        self.n_requests += 1
        made = [call for message in messages for call in message.get("tool_calls") or []]
        results = [plain(text_of(message)) for message in messages if message["role"] == "tool"]
        calls, words, goals = list(self.calls), self.words, dict(self.goals)
        for idx, result in enumerate(results):
            if made[idx]["function"]["name"] != calls[idx].function:
                self.wrong.append(f"{calls[idx].function} came back as {made[idx]['function']}")
            for goal in [goal for goal in goals if goal in result]:
                more, said = goals.pop(goal)()
                calls[idx + 1 : idx + 1] = more
                words = f"{words} {said}"
        if len(results) < len(calls):
            return calls[len(results)], None
        self.n_obeyed += len(goals) < len(self.goals)
        return None, words

    def reply(self, request):
        """A whole answer in OpenAI's shape."""
        call, words = self.answer(request["messages"])
        message = {"role": "assistant", "content": words}
        if call:
            function = {"name": call.function, "arguments": json.dumps(dict(call.args), default=str)}
            message["tool_calls"] = [{"id": f"call_{self.n_requests}", "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if call else "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {
            "id": "a", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": usage,
        }


def serve_model(model):
    """The model over HTTP on a free port; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):  # noqa: N802 (the name is the library's)
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps(model.reply(request)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"


@contextlib.contextmanager
def served(binary, upstream):
    """The address of our server in front of the model, or of the model itself."""
    if binary is None:
        yield upstream
        return
    with tempfile.TemporaryDirectory() as data:
        server, address = start_perilune(binary, upstream, data)
        try:
            yield f"{address}/v1"
        finally:
            server.terminate()
            server.wait()


def start_perilune(binary, upstream, data):
    """Our server in front of the model; the process and its address."""
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--data", data, "--upstream", f"{MODEL}={upstream}#{MODEL}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in server.stdout:
        if line.startswith("address"):
            return server, line.split()[1]
    raise SystemExit("the server did not say its address")


class Announce(BasePipelineElement):
    """Tells the model the solution of the task that begins, as the tasks themselves give it for their world."""

    def __init__(self, model, suite):
        self.model, self.suite = model, suite

    def query(self, query, runtime, env=EmptyEnv(), messages=(), extra_args={}):  # noqa: B006, B008 (as its base)
        # The world as it is now; each solution gets a copy, for it may change what it looks at.
        start = env.model_copy(deep=True)

        def solution(task):
            return task.ground_truth(start.model_copy(deep=True)), task.GROUND_TRUTH_OUTPUT

        injections = {task.GOAL: task for task in self.suite.injection_tasks.values()}
        users = {task.PROMPT: task for task in self.suite.user_tasks.values()}
        task = users.get(query) or injections[query]
        later = {goal: functools.partial(solution, it) for goal, it in injections.items() if goal != query}
        goals = {goal: functools.cache(solve) for goal, solve in later.items()}
        self.model.solve(*solution(task), goals)
        return query, runtime, env, messages, extra_args


def pipeline(model, suite, address):
    """AgentDojo's own loop and OpenAI client."""
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
    llm = OpenAILLM(client, MODEL)
    loop = ToolsExecutionLoop([ToolsExecutor(), llm], max_iters=40)
    made = AgentPipeline([Announce(model, suite), SystemMessage("You do tasks."), InitQuery(), llm, loop])
    # The attack addresses the model by the name that it finds here.
    made.name = "local"
    return made


def share(results):
    """How many of how many."""
    return f"{sum(results.values())} of {len(results)}"


def main():
    """One line for each suite and model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("perilune", nargs="?", help="the binary; without it the client asks the model itself: the control")
    parser.add_argument("--version", default="v1.2.2", help="of the benchmark")
    parser.add_argument("--attack", default="important_instructions")
    parser.add_argument("--suites", nargs="*", help="all, where none is named")
    args = parser.parse_args()
    for name, suite in get_suites(args.version).items():
        if args.suites and name not in args.suites:
            continue
        for kind in ("faithful", "obeying"):
            model = ScriptedModel(obeys=kind == "obeying")
            with served(args.perilune, serve_model(model)) as address, OutputLogger(None):
                loop = pipeline(model, suite, address)
                alone = benchmark_suite_without_injections(loop, suite, None, True)
                attack = load_attack(args.attack, suite, loop)
                attacked = benchmark_suite_with_injections(loop, suite, attack, None, True, verbose=False)
            print(
                f"{name} {kind}: useful without attack {share(alone['utility_results'])}, "
                f"useful under attack {share(attacked['utility_results'])}, "
                f"injections that had their way {share(attacked['security_results'])} "
                f"(obeyed in {model.n_obeyed}), {model.n_requests} requests, {len(model.wrong)} changed on the way",
                flush=True,
            )
            for wrong in model.wrong[:3]:
                print(f"  {wrong}")


if __name__ == "__main__":
    main()
