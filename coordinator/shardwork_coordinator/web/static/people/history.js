// History: every answer, what became of it and what it paid, newest first; also as a file.
import { button, el, save } from "./dom.js";
import { answerInWords, moment, sats, sentenceOf, stateInWords } from "./words.js";

export class History {
  #app;
  #closed = false;
  #seen = [];
  // from where older ones are asked for; null: there are none
  #before = "";

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
    const { votes, next } = await this.#app.wire.get(this.#before ? `history?before=${this.#before}` : "history");
    if (this.#closed) return;
    this.#before = next;
    this.#seen.push(...votes);
    this.list.append(...votes.map(line));
    this.more.hidden = next === null;
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
