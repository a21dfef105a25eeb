// Elements, made without markup: what other people wrote is only ever set as text.

// el("p", {class: "x", onclick: f, "aria-label": "y"}, "text", child): null and false are left out
export const el = (name, given = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat(2).filter((one) => one !== null && one !== undefined && one !== false));
  return made;
};

// a text of anybody's: lines and spaces kept, every line in its own direction, fenced code in a fixed width
export const written = (text) => {
  const parts = String(text).split(/(```[\s\S]*?(?:```|$))/);
  return parts.filter((part) => part).map((part) => {
    const isCode = part.startsWith("```");
    return el(isCode ? "code" : "span", { class: isCode ? "written code" : "written", dir: "auto" }, part);
  });
};

// a prompt is a text, or the turns of a conversation
export const conversation = (prompt) => {
  if (!Array.isArray(prompt)) return written(prompt ?? "");
  const names = { user: "Person", assistant: "Assistant", system: "Instructions" };
  return prompt.map((turn) =>
    el("div", { class: "turn" }, el("b", {}, names[turn.role] ?? String(turn.role)), written(turn.content ?? "")));
};

export const button = (text, onclick, given = {}) => el("button", { type: "button", onclick, ...given }, text);

// a file that the browser saves
export const save = (name, text) => {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
};
