// The chat page: asks /v1/chat/completions with the session's token and writes pieces down as they come.
// All text goes into text nodes, never into markup.

const at = (id) => document.getElementById(id);
const token = document.querySelector('meta[name="perilune-token"]').content;
const [dialogue, question, ask, send, stop] = ["dialogue", "question", "ask", "send", "stop"].map(at);
const SPEED_EVERY_MS = 200;

let messages = [];
let running = null;

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** A text node that grows, in a paragraph that is shown once it has text. */
function growing(parent, className) {
  const box = parent.appendChild(element("div", className));
  const text = box.appendChild(document.createTextNode(""));
  box.hidden = true;
  return {
    box,
    add(piece) { box.hidden = false; text.appendData(piece); },
  };
}

function bubble(role, label) {
  at("empty")?.remove();
  const article = dialogue.appendChild(element("article", `turn ${role}`));
  article.append(element("h2", "who", label));
  return article;
}

/** Changes that wait to be drawn. */
const changes = [];

/** Draws a change with the next frame: a fast model's pieces come more often than a page can be laid out. */
function follow(change) {
  if (changes.push(change) === 1) requestAnimationFrame(draw);
}

/** Makes the changes that wait, and keeps the end in sight for whoever is reading there. */
function draw() {
  if (changes.length === 0) return;
  const isAtEnd = innerHeight + scrollY >= document.body.scrollHeight - 160;
  for (const change of changes.splice(0)) change();
  if (isAtEnd) scrollTo(0, document.body.scrollHeight);
}

/** The data of each event of a response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length > 0) yield data.join("\n");
    }
  }
}

/** Pieces a second while it runs, the counted tokens once they are known. */
function meter(line) {
  const since = performance.now();
  let first = null;
  let last = 0;
  let shown = 0;
  let n = 0;
  const rate = () => `≈ ${((n - 1) / (last - first) * 1000).toFixed(1)} tokens/s`;
  return {
    piece() {
      n += 1;
      last = performance.now();
      first ??= last;
      if (last - shown < SPEED_EVERY_MS || n < 2) return;
      shown = last;
      line.textContent = rate();
    },
    end(usage, reason) {
      const parts = [];
      if (usage) {
        const seconds = (last - (first ?? last)) / 1000;
        const whole = (performance.now() - since) / 1000;
        // A short answer may come in one piece of the network: then its time is not known apart from the prompt's.
        if (seconds > 0.05) parts.push(`${((usage.completion_tokens - 1) / seconds).toFixed(1)} tokens/s`);
        else parts.push(`${(usage.completion_tokens / whole).toFixed(1)} tokens/s, prompt included`);
        const thinking = usage.completion_tokens_details?.reasoning_tokens ?? 0;
        const cached = usage.prompt_tokens_details?.cached_tokens ?? usage.cached_tokens ?? 0;
        parts.push(`${usage.completion_tokens} tokens (${thinking} thinking)`);
        parts.push(`prompt ${usage.prompt_tokens} (${cached} cached)`);
      } else if (last > first) {
        parts.push(rate());
      }
      if (first !== null) parts.push(`first after ${((first - since) / 1000).toFixed(2)} s`);
      if (reason === "length") parts.push("cut off at the most tokens");
      if (reason === "stopped") parts.push("stopped");
      line.textContent = parts.join(" · ");
    },
  };
}

/** One answer on the page, and the message it becomes. */
function reply() {
  const article = bubble("assistant", "Model");
  const details = article.appendChild(element("details", "thinking"));
  details.open = true;
  details.hidden = true;
  details.append(element("summary", "", "Thinking"));
  const thinking = growing(details, "text");
  const content = growing(article, "text");
  const calls = article.appendChild(element("div", "calls"));
  const speed = article.appendChild(element("p", "speed"));
  const message = { role: "assistant", content: "" };
  const boxes = [];
  return {
    article, message, speed, calls,
    add(delta) {
      if (delta.reasoning_content) {
        details.hidden = false;
        thinking.add(delta.reasoning_content);
        message.reasoning_content = (message.reasoning_content ?? "") + delta.reasoning_content;
      }
      if (delta.content) {
        content.add(delta.content);
        message.content += delta.content;
      }
      for (const piece of delta.tool_calls ?? []) {
        message.tool_calls ??= [];
        const call = message.tool_calls[piece.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } };
        call.id = piece.id ?? call.id;
        call.function.name += piece.function?.name ?? "";
        call.function.arguments += piece.function?.arguments ?? "";
        boxes[piece.index] ??= calls.appendChild(element("pre", "call"));
        boxes[piece.index].textContent = `${call.function.name}(${call.function.arguments})`;
      }
    },
    /** Says what failed, and offers the same request once more. */
    fail(text) {
      const line = article.appendChild(element("p", "alert", text));
      line.setAttribute("role", "alert");
      const again = article.appendChild(element("button", "quiet", "Try again"));
      again.type = "button";
      again.addEventListener("click", () => {
        if (running) return;
        article.remove();
        answer();
      });
    },
  };
}

function request() {
  const system = at("system").value.trim();
  const tools = at("tools").value.trim();
  return {
    model: at("model").value,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    temperature: Number(at("temperature").value),
    max_tokens: Number(at("max_tokens").value),
    thinking: { type: at("thinking").checked ? "enabled" : "disabled" },
    stream: true,
    stream_options: { include_usage: true },
    ...(tools ? { tools: parsed(tools) } : {}),
  };
}

function parsed(tools) {
  try {
    return JSON.parse(tools);
  } catch (error) {
    throw new Error(`the tools in the settings are not JSON: ${error.message}`);
  }
}

async function post(body, signal) {
  const headers = { "content-type": "application/json", "x-perilune-token": token };
  const response = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  throw new Error(said?.error?.message ?? `the server answered ${response.status}`);
}

/** Writes one streamed answer down; why it ended. */
async function read(response, shown, speed) {
  let usage = null;
  let reason = null;
  for await (const data of events(response)) {
    if (data === "[DONE]") {
      speed.end(usage, reason);
      return reason;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    usage = chunk.usage ?? usage;
    const choice = chunk.choices?.[0];
    if (!choice) continue;
    reason = choice.finish_reason ?? reason;
    const { content, reasoning_content, tool_calls } = choice.delta;
    if (!content && !reasoning_content && !tool_calls) continue;
    speed.piece();
    follow(() => shown.add(choice.delta));
  }
  throw new Error("the answer broke off; send it again");
}

async function answer() {
  const shown = reply();
  const speed = meter(shown.speed);
  setRunning(new AbortController());
  dialogue.setAttribute("aria-busy", "true");
  let said = "The answer is complete.";
  let calls = null;
  try {
    const reason = await read(await post(request(), running.signal), shown, speed);
    draw();
    messages.push(shown.message);
    if (reason === "tool_calls") calls = shown;
  } catch (error) {
    draw();
    if (error.name === "AbortError") {
      speed.end(null, "stopped");
      said = "The answer was stopped.";
      if (shown.message.content) messages.push({ role: "assistant", content: shown.message.content });
    } else {
      shown.fail(error.message);
      said = "";
    }
  } finally {
    setRunning(null);
    dialogue.removeAttribute("aria-busy");
    at("announce").textContent = said;
  }
  if (calls) results(calls);
  else question.focus();
}

/** A field for each call's result; sent together, the answer goes on. */
function results(shown) {
  const form = shown.calls.appendChild(element("form", "stack"));
  const fields = shown.message.tool_calls.map((call, index) => {
    const label = form.appendChild(element("label", "", `Result of ${call.function.name}`));
    const field = form.appendChild(element("textarea", ""));
    field.id = label.htmlFor = `result-${messages.length}-${index}`;
    field.rows = 2;
    return field;
  });
  const button = form.appendChild(element("button", "", "Send results"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) return;
    button.remove();
    shown.message.tool_calls.forEach((call, index) => {
      fields[index].readOnly = true;
      messages.push({ role: "tool", tool_call_id: call.id, content: fields[index].value });
    });
    answer();
  });
  follow(() => fields[0].focus());
}

function setRunning(controller) {
  running = controller;
  send.disabled = controller !== null;
  stop.hidden = controller === null;
}

ask.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (running || !text) return;
  messages.push({ role: "user", content: text });
  bubble("user", "You").append(element("div", "text", text));
  question.value = "";
  answer();
});

question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask.requestSubmit();
});

stop.addEventListener("click", () => running?.abort());

at("clear").addEventListener("click", () => {
  running?.abort();
  messages = [];
  dialogue.replaceChildren();
  question.focus();
});
