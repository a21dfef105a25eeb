// Panels: what stands where the next item would be, when there is something else to say first.
import { button, el } from "./dom.js";
import { sentenceOf, standingInWords } from "./words.js";

const panel = (tone, title, lines, ...buttons) =>
  el(
    "section",
    { class: `card panel ${tone}` },
    el("h1", { tabindex: -1 }, title),
    lines.filter((line) => line).map((line) => el("p", { dir: "auto" }, line)),
    el("div", { class: "row" }, buttons),
  );

// Enter presses it, too
const onward = (words, does) => button(words, does, { class: "pick", "data-go": true });
const allTasks = () => el("a", { class: "button", href: "#tasks" }, "All tasks");

export const practised = ({ right, sentence }, next) =>
  panel(right ? "good" : "warn", right ? "That is right" : "Not quite", [sentence, "This was practice: it is neither paid nor counted."], onward("Go on", next));

export const kept = (hurry, undo) =>
  panel(
    "warn",
    "Your answer is kept",
    ["There is no connection. Your answer is kept on this device and is sent by itself as soon as there is one. You may close the page meanwhile and come back later."],
    onward("Try now", hurry),
    button("Undo", undo),
  );

export const ranOut = (next) =>
  panel("", "The time for this item is over", ["Somebody else gets it now. Nothing is counted against you."], onward("Next item", next));

export const turnedDown = (words, next) => panel("warn", "This did not count", [words], onward("Next item", next));

export const lost = (next) => panel("warn", "No connection", ["The next item comes as soon as there is one."], onward("Try now", next));

export const failed = (words, next) => panel("warn", "This did not work", [words], onward("Try again", next), allTasks());

export const over = (why, progress, next, undo) => {
  const isStopped = progress?.state === "stopped";
  return panel(
    isStopped ? "warn" : "",
    isStopped ? "You were stopped in this task" : "Nothing more to judge here for now",
    isStopped ? [sentenceOf(why) || standingInWords(progress)] : [sentenceOf(why), standingInWords(progress)],
    isStopped ? null : onward("Look again", next),
    undo ? button("Undo the last one", undo) : null,
    allTasks(),
  );
};
