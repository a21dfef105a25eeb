// History: every answer, what became of it and what it paid, newest first; also as a file.
import { button, el, save } from "./dom.js";
import { answerInWords, moment, sats, sentenceOf, stateInWords } from "./words.js";

export class History {
  #app;
  #closed = false;
  #seen = [];

  constructor(app, main) {
    this.#app = app;
    this.list = el("ol", { class: "votes" });
    this.more = button("Older ones", () => app.guarded(this.#load()), { hidden: true });
    this.file = button("Save as a file", () => save("shardwork-history.json", JSON.stringify(this.#seen, null, 1)), { hidden: true });
    this.empty = el("p", { class: "card", hidden: true }, "You have judged nothing yet.");
    main.replaceChildren(el("h1", { tabindex: -1 }, "Your answers"), this.empty, this.list, el("div", { class: "row" }, this.more, this.file));
    app.guarded(this.#load());
  }

  close() {
    this.#closed = true;
  }

  async #load() {
    const oldest = this.#seen.at(-1)?.at_ms;
    const { votes } = await this.#app.wire.get(oldest ? `history?before=${oldest}` : "history");
    if (this.#closed) return;
    // votes of the very same moment may come twice
    const known = new Set(this.#seen.map((one) => one.lease));
    const fresh = votes.filter((one) => !known.has(one.lease));
    this.#seen.push(...fresh);
    this.list.append(...fresh.map(line));
    this.more.hidden = fresh.length === 0;
    this.file.hidden = this.#seen.length === 0;
    this.empty.hidden = this.#seen.length > 0;
  }
}

const line = (vote) =>
  el(
    "li",
    { class: "card vote" },
    el("div", { class: "what" }, el("b", {}, answerInWords(vote.answer)), el("span", { class: "quiet" }, ` · item ${vote.number} · `, el("span", { dir: "auto" }, vote.stage))),
    el("div", { class: "money" }, el("span", { class: `state ${vote.state}` }, stateInWords(vote.state)), vote.msat ? el("b", {}, sats(vote.msat)) : null),
    el("time", { class: "quiet", datetime: new Date(vote.at_ms).toISOString() }, moment(vote.at_ms)),
    vote.why ? el("p", { class: "why", dir: "auto" }, sentenceOf(vote.why)) : null,
  );
