// Gives every <pre data-copy> a button that copies its text.

async function copy(pre) {
  // The clipboard is there on HTTPS and localhost only; elsewhere the selection is copied.
  if (navigator.clipboard) return navigator.clipboard.writeText(pre.textContent);
  getSelection().selectAllChildren(pre);
  if (!document.execCommand("copy")) throw new Error("the browser refused");
}

for (const pre of document.querySelectorAll("pre[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy quiet";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await copy(pre);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy failed: select it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  const frame = document.createElement("div");
  frame.className = "copyable";
  pre.replaceWith(frame);
  frame.append(pre, button);
}
