// The pages on runs: lists that stay up to date, a trace that grows, its search and its folds.
// All HTML comes escaped from the server; texts of this script go into text nodes.

const at = (id) => document.getElementById(id);
const parsed = (html) => {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
};

/** Whether the reader is at work inside an element: what is typed or opened there must stay. */
function isInUse(element) {
  const field = document.activeElement;
  const isTyping = element.contains(field) && field.matches("input, textarea, select, button, summary, a");
  return isTyping || element.querySelector("details[open]") !== null;
}

/** Asks for the page again and takes over the part that lives. */
async function refresh(live) {
  if (document.hidden || isInUse(live)) return;
  const response = await fetch(location.href);
  if (!response.ok || response.redirected) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.getElementById("live");
  if (fresh && fresh.innerHTML !== live.innerHTML && !isInUse(live)) live.innerHTML = fresh.innerHTML;
}

const live = at("live");
if (live) setInterval(() => refresh(live).catch(() => {}), Number(live.dataset.every));

const trace = at("trace");
if (trace) {
  const [search, found, follow] = ["q", "found", "follow"].map(at);
  const stepsOf = (root) => [...root.querySelectorAll(".step")];
  for (const id of ["fold", "unfold", "following"]) at(id).hidden = false;
  search.form.querySelector("button[type=submit]").hidden = true;

  /** Hides the steps that do not hold the words. */
  const sift = () => {
    const words = search.value.trim().toLowerCase();
    let n = 0;
    for (const step of stepsOf(trace)) {
      step.hidden = words !== "" && !step.textContent.toLowerCase().includes(words);
      if (!step.hidden) n += 1;
    }
    const hold = n === 1 ? "step holds" : "steps hold";
    found.textContent = words === "" ? "" : `${n} ${hold} “${search.value.trim()}”.`;
  };

  const setFolds = (isOpen) => {
    for (const fold of trace.querySelectorAll("details")) fold.open = isOpen;
  };
  at("fold").addEventListener("click", () => setFolds(false));
  at("unfold").addEventListener("click", () => setFolds(true));
  search.addEventListener("input", sift);
  search.form.addEventListener("submit", (event) => { event.preventDefault(); sift(); });

  /** A step that has grown keeps the folds that the reader opened. */
  const put = (step) => {
    const old = at(step.id);
    if (!old) return trace.append(step);
    const folds = step.querySelectorAll("details");
    old.querySelectorAll("details").forEach((fold, i) => { if (folds[i]) folds[i].open = fold.open; });
    old.replaceWith(step);
  };

  /** Another question takes the place of the one that was there; the same one keeps what is typed below it. */
  const ask = (question) => {
    const idOf = (root) => root.querySelector("[data-id]")?.dataset.id;
    if (idOf(question) !== idOf(at("question"))) at("question").replaceChildren(question);
  };

  const grow = async () => {
    const { dataset } = stepsOf(trace).at(-1) ?? { dataset: { seq: 1, number: 1, call: 1 } };
    const { seq, number, call } = dataset;
    const had = { seen: trace.dataset.seen, stand: trace.dataset.stand, seq, step: number, call };
    const response = await fetch(`${trace.dataset.later}?${new URLSearchParams(had)}`);
    // Whoever is not logged in any more is led to the login.
    if (response.redirected) return false;
    if (response.status !== 200) return true;
    const later = await response.json();
    for (const step of stepsOf(parsed(later.steps))) put(step);
    at("head").replaceChildren(parsed(later.head));
    ask(parsed(later.question));
    // The forms there are other ones where the run stands elsewhere.
    if (later.stand !== trace.dataset.stand) at("control").replaceChildren(parsed(later.control));
    at("step").max = later.n_steps;
    at("end").replaceChildren(parsed(later.end));
    Object.assign(trace.dataset, { seen: later.seen, stand: later.stand });
    sift();
    if (follow.checked) scrollTo(0, document.body.scrollHeight);
    return !later.is_over;
  };

  // A page that the server searched has not all steps: it is made whole first.
  const begin = async () => {
    if (search.value !== "") {
      const response = await fetch(location.pathname);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      trace.replaceChildren(...page.getElementById("trace").children);
      trace.dataset.seen = page.getElementById("trace").dataset.seen;
      sift();
    }
    const isEnded = ["done", "stopped", "stuck"].includes(trace.dataset.stand);
    for (let isOpen = !isEnded; isOpen;) {
      await new Promise((next) => { setTimeout(next, Number(trace.dataset.every)); });
      if (!document.hidden) isOpen = await grow().catch(() => true);
    }
  };
  begin();
}
