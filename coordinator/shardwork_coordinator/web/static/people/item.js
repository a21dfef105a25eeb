// One item on the screen: its prompt, its answers, the buttons, and what its keys and swipes say. Decides nothing itself.
import { button, conversation, el } from "./dom.js";
import { compare } from "./compare.js";
import { Marks } from "./marks.js";
import { ranking } from "./ranking.js";
import { review } from "./review.js";
import { scoring } from "./scoring.js";
import { swipes } from "./swipe.js";
import { clock, sats } from "./words.js";

const KINDS = { compare, rank: ranking, score: scoring, review };
const ASKS = {
  compare: "Which answer is better?",
  rank: "Put them in order, the best on top",
  score: "How good is this answer?",
  review: "Keep it, throw it away, or mend it?",
};

export class Item {
  // does: {send(answer), skip(), report(), undo(), say(text)}
  constructor(task, does) {
    this.task = task;
    this.does = does;
    this.kind = (KINDS[task.kind] ?? compare)(task, does.send, does.say);
    this.marks = task.kind === "review" ? null : new Marks(task, { scales: task.kind !== "score" });
    this.left = el("p", { class: "left", role: "timer", hidden: true });
    this.wait = el("p", { class: "wait quiet" });
    this.title = el("h1", { tabindex: -1 }, ASKS[task.kind] ?? ASKS.compare);
    this.fold = button("Show all of it", () => this.#unfold(), { class: "fold", hidden: true, "aria-pressed": "false" });
    this.undo = button([el("span", {}, "Undo"), el("kbd", { "aria-hidden": "true" }, "u")], does.undo, { class: "small", "aria-keyshortcuts": "u" });
    this.node = this.#build();
    this.offerUndo(false);
  }

  get given() {
    return this.marks?.given ?? {};
  }

  // what is still missing, in words
  get hindrance() {
    return this.marks?.hindrance ?? "";
  }

  offerUndo(isOffered) {
    this.undo.disabled = !isOffered;
  }

  // while an answer is on its way nothing can be pressed
  freeze(isFrozen) {
    for (const one of this.bar.querySelectorAll("button")) one.toggleAttribute("data-frozen", isFrozen);
    this.bar.setAttribute("aria-busy", String(isFrozen));
  }

  tick({ wait, left }) {
    const text = wait ? `Read first: you can answer in ${wait} s.` : "";
    if (this.wait.textContent !== text) this.wait.textContent = text;
    this.bar.toggleAttribute("data-early", wait > 0);
    this.left.hidden = left === null;
    if (left !== null) this.left.textContent = `${clock(left)} left for this one, then somebody else gets it.`;
  }

  // whether the key meant something here
  press(key, event) {
    if (this.kind.press(key, event)) return true;
    const does = { s: this.does.skip, r: this.does.report, u: this.does.undo }[key];
    does?.();
    return Boolean(does);
  }

  // once it is on the page: long texts scroll in boxes of one height, or are all opened alike
  fit() {
    const texts = [...this.node.querySelectorAll(".text")];
    this.fold.hidden = !texts.some((one) => one.scrollHeight > one.clientHeight + 24);
  }

  #unfold() {
    const isOpen = this.node.classList.toggle("whole");
    this.fold.setAttribute("aria-pressed", String(isOpen));
    this.fold.textContent = isOpen ? "Fold" : "Show all of it";
  }

  #build() {
    const { task, kind } = this;
    const small = (words, key, does) =>
      button([el("span", {}, words), el("kbd", { "aria-hidden": "true" }, key)], does, { class: "small", "aria-keyshortcuts": key });
    this.bar = el(
      "div",
      { class: "bar", role: "group", "aria-label": "Your answer" },
      this.wait,
      el("div", { class: "picks" }, kind.main),
      el("div", { class: "smalls" }, kind.small, small("Skip", "s", this.does.skip), this.undo, small("Report", "r", this.does.report)),
    );
    const pay = task.practice ? "Practice, unpaid" : `Item ${task.number} · ${sats(task.pay_msat)}`;
    const prompt = task.prompt?.length ? el("section", { class: "prompt", "aria-label": "Question" }, el("div", { class: "text", tabindex: 0, role: "group", "aria-label": "The question" }, conversation(task.prompt))) : null;
    const area = el("div", { class: "swipe" }, prompt, kind.body);
    if (kind.onswipe) swipes(area, kind);
    const head = el("div", { class: "titled" }, this.title, el("p", { class: "quiet pay" }, pay), this.fold, this.left);
    return el("div", { class: `item ${task.kind}`, "data-lease": task.lease }, head, area, this.marks?.node, this.bar);
  }
}
