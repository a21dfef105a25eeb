// Kind "compare": two answers without names, one of them is better. 1, 2, 0 and b; a swipe to the left or right.
import { button, el, written } from "./dom.js";

const KEYS = { 1: "a", 2: "b", 0: "tie", b: "both_bad" };
const SIDES = { left: "a", right: "b" };
const HINTS = { left: "Answer 1 is better", right: "Answer 2 is better" };

// one answer in its box; a long one scrolls, and is reached by the Tab key for that
export const answerBox = (text, name, extra = []) => {
  const id = `answer-${name.replaceAll(/\W+/g, "-").toLowerCase()}`;
  return el(
    "article",
    { class: "answer" },
    el("div", { class: "head" }, el("h2", { id }, name), extra),
    el("div", { class: "text", tabindex: 0, role: "group", "aria-labelledby": id }, written(text)),
  );
};

export const compare = (task, send) => {
  const decide = (winner, words, key, kind) =>
    button([el("span", {}, words), el("kbd", { "aria-hidden": "true" }, key)], () => send({ winner }), {
      class: kind,
      "aria-keyshortcuts": key,
      "data-winner": winner,
    });
  const hint = el("p", { class: "hint-swipe", hidden: true });
  return {
    body: el("div", { class: "answers two" }, task.answers.map((text, at) => answerBox(text, `Answer ${at + 1}`)), hint),
    main: [decide("a", "1 is better", "1", "pick"), decide("b", "2 is better", "2", "pick")],
    small: [decide("tie", "Equal", "0", "small"), decide("both_bad", "Both bad", "b", "small")],
    press: (key) => {
      if (!(key in KEYS)) return false;
      send({ winner: KEYS[key] });
      return true;
    },
    onhint: (side) => {
      hint.hidden = !side;
      hint.textContent = HINTS[side] ?? "";
      hint.dataset.side = side;
    },
    onswipe: (side) => send({ winner: SIDES[side] }),
  };
};
