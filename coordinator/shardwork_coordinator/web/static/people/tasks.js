// The list of tasks, and one task before it is begun: what is asked, how long it takes, what it pays and when.
import { button, el, written } from "./dom.js";
import { KINDS, many, reading, sats, sentenceOf, span, standingInWords } from "./words.js";

const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

const factsOf = (task) =>
  el(
    "dl",
    { class: "facts" },
    fact("Pays", `${sats(task.pay_msat)} each`),
    fact("Takes", task.seconds ? `about ${span(task.seconds)} each` : "you'll see"),
    fact("Left", many(task.left ?? 0, "item")),
    fact("Guideline", reading(task.guideline)),
  );

const addressOf = (task) => `#${encodeURIComponent(task.job)}/${encodeURIComponent(task.stage)}`;

export const taskCard = (task, { isLink = true } = {}) => {
  const title = isLink ? el("a", { href: addressOf(task), dir: "auto" }, task.title) : el("span", { dir: "auto" }, task.title);
  const standing = task.mine?.done ? `${many(task.mine.done, "item")} judged by you. ${standingInWords(task.mine)}` : "";
  return el(
    "article",
    { class: `card task ${task.open ? "" : "shut"}` },
    el("h2", {}, title),
    el("p", {}, KINDS[task.kind] ?? ""),
    factsOf(task),
    task.open ? null : el("p", { class: "why", dir: "auto" }, sentenceOf(task.why)),
    standing ? el("p", { class: "quiet" }, standing) : null,
  );
};

export class Tasks {
  #main;
  #app;
  #closed = false;

  constructor(app, main) {
    this.#app = app;
    this.#main = main;
    this.#load();
  }

  close() {
    this.#closed = true;
  }

  async #load() {
    const answer = await this.#app.tasks();
    if (this.#closed) return;
    const cards = answer.tasks.map((task) => taskCard(task));
    const empty = el("p", { class: "card" }, "Nothing is to be judged at the moment. Look again later, or open the link that you were sent.");
    this.#main.replaceChildren(
      el("h1", { tabindex: -1 }, "Tasks"),
      ...(cards.length ? cards : [empty]),
      el("div", { class: "row" }, button("Look again", () => this.#app.guarded(this.#load()))),
    );
  }
}

export class Intro {
  #closed = false;

  constructor(app, main, where) {
    app.guarded(this.#load(app, main, where));
  }

  close() {
    this.#closed = true;
  }

  async #load(app, main, where) {
    const answer = await app.tasks();
    if (this.#closed) return;
    const isAsked = (one) => one.job === where.job && one.stage === where.stage;
    const task = answer.tasks.find(isAsked) ?? (await app.invited(where.invitation)).find(isAsked);
    if (this.#closed) return;
    if (!task) {
      main.replaceChildren(
        el("h1", { tabindex: -1 }, "This task is not here"),
        el("p", {}, "The link leads to a task that is over, or that was mistyped."),
        el("a", { class: "button", href: "#tasks" }, "All tasks"),
      );
      return;
    }
    app.setStanding(task.mine);
    main.replaceChildren(...introduction(task, app.isSimulated));
  }
}

const introduction = (task, isSimulated) => {
  const begin = el("a", { class: "button pick", href: `${addressOf(task)}/judge` }, task.mine?.done ? "Go on" : "Begin");
  return [
    el("h1", { tabindex: -1, dir: "auto" }, task.title),
    el("p", { class: "lead" }, KINDS[task.kind] ?? ""),
    factsOf(task),
    task.guideline ? el("section", { "aria-labelledby": "guideline" }, el("h2", { id: "guideline" }, "Guideline"), el("div", { class: "card guideline" }, written(task.guideline))) : null,
    el("section", { "aria-labelledby": "paid" }, el("h2", { id: "paid" }, "How you are paid"), paid(task, isSimulated)),
    el("section", { "aria-labelledby": "keys" }, el("h2", { id: "keys" }, "Keys and swipes"), keys(task.kind)),
    el("div", { class: "begin" }, task.open ? begin : el("p", { class: "card why", dir: "auto" }, sentenceOf(task.why))),
  ].filter((one) => one);
};

const paid = (task, isSimulated) => {
  const until = task.mine?.cleared_at;
  const lines = [
    practice(task.mine?.practice_left),
    `Each answer is worth ${sats(task.pay_msat)}. ${until ? `Until ${until} are judged` : "At first"} the pay is held; when your answers are careful, all that is held is paid at once, and from then on each answer as you send it.`,
    "Some items are there to see whether people read them. Whoever answers without reading is stopped, and what is held is not paid.",
    isSimulated ? "The sats here are simulated: they are worth nothing." : "",
  ];
  return el("ul", { class: "lines" }, lines.filter((line) => line).map((line) => el("li", {}, line)));
};

const practice = (left) =>
  left ? `${many(left, "item")} for practice ${left === 1 ? "comes" : "come"} first: you are told whether you were right; practice is not paid.` : "";

const KEYS = {
  compare: [["1", "the first is better (swipe left)"], ["2", "the second is better (swipe right)"], ["0", "equally good"], ["b", "both are bad"]],
  rank: [["3 1 2", "the third is best, then the first, then the second"], ["Shift ↑ ↓", "moves the answer that you are on; or drag it by ⠿"], ["Enter", "sends the order"]],
  score: [["1 to 5", "points for the next scale"], ["Backspace", "takes the last points away"], ["Enter", "sends them"]],
  review: [["k", "keep"], ["d", "throw away"], ["e", "mend; Ctrl Enter sends"]],
};
const ALWAYS = [["s", "skip: not paid, not counted"], ["u", "undo the last answer"], ["r", "report what should not be here"]];

const keys = (kind) =>
  el("dl", { class: "keys" }, [...(KEYS[kind] ?? []), ...ALWAYS].map(([key, does]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, does))));
