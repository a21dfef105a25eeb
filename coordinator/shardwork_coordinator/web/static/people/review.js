// Kind "review": a text is kept, thrown away, or mended and kept. k, d and e.
import { button, el } from "./dom.js";
import { answerBox } from "./compare.js";

export const review = (task, send, say) => {
  const text = el("textarea", { rows: 12, dir: "auto", id: "edited" });
  const editor = el("div", { class: "editor", hidden: true }, el("label", { for: "edited" }, "Mend the text, then send it"), text);
  const shown = el("div", { class: "answers" }, task.answers.map((one) => answerBox(one, "Text")));
  const keep = button([el("span", {}, "Keep"), el("kbd", { "aria-hidden": "true" }, "k")], () => keeps(), { class: "pick", "aria-keyshortcuts": "k" });
  const drop = button([el("span", {}, "Throw away"), el("kbd", { "aria-hidden": "true" }, "d")], () => send({ verdict: "discard" }), { class: "pick", "aria-keyshortcuts": "d" });
  const edit = button([el("span", {}, "Mend it"), el("kbd", { "aria-hidden": "true" }, "e")], () => opens(), { class: "small", "aria-keyshortcuts": "e" });

  const opens = () => {
    text.value ||= task.answers[0];
    editor.hidden = false;
    shown.hidden = true;
    keep.firstChild.textContent = "Send mended";
    edit.hidden = true;
    text.focus();
    say("You can change the text. Escape leaves it as it was.");
  };
  const closes = () => {
    editor.hidden = true;
    shown.hidden = false;
    keep.firstChild.textContent = "Keep";
    edit.hidden = false;
    edit.focus();
  };
  const keeps = () => {
    if (editor.hidden || text.value === task.answers[0]) send({ verdict: "keep" });
    else if (text.value.trim()) send({ verdict: "edit", text: text.value });
    else say("Nothing is left of the text. Throw it away instead, or press Escape.");
  };
  text.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closes();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) keeps();
  });

  return {
    body: el("div", {}, shown, editor),
    main: [keep, drop],
    small: [edit],
    press: (key) => {
      const does = { k: keeps, d: () => send({ verdict: "discard" }), e: opens }[key];
      does?.();
      return Boolean(does);
    },
  };
};
