// Judging: one item after the other. Fetches, shows, sends and goes on; undoes; waits out a lost line; says why it ends.
// An answer belongs to its item's `lease`, the coordinator's name for "this item, lent to you until then".
import { el } from "./dom.js";
import { Item } from "./item.js";
import { keyOf } from "./keys.js";
import * as panels from "./panels.js";
import { askReason } from "./report.js";
import { Timing } from "./timing.js";
import { Unreachable } from "./wire.js";
import { answerInWords, payInWords } from "./words.js";

const RETRY_MS = 3_000;

export class Judging {
  #app;
  #main;
  #where;
  // "loading", "item", "sending", "waiting" (for a line), "stopped" (a panel with a button)
  #state = "loading";
  #item = null;
  #timing = null;
  // the newest answer, while it may be taken back: {task, until}
  #last = null;
  // what was on the screen when an answer was taken back
  #aside = null;
  #undone = new Set();
  #retry = 0;
  #closed = false;
  #press = (event) => this.#key(event);

  constructor(app, main, where) {
    this.#app = app;
    this.#main = main;
    this.#where = where;
    document.addEventListener("keydown", this.#press);
    this.next();
  }

  close() {
    this.#closed = true;
    this.#timing?.stop();
    clearTimeout(this.#retry);
    document.removeEventListener("keydown", this.#press);
  }

  // ---- one after the other

  async next() {
    this.#loading();
    const aside = this.#aside;
    this.#aside = null;
    if (aside && aside.expires_ms > this.#app.wire.now()) return this.#show(aside);
    try {
      const answer = await this.#app.wire.post("next", this.#where);
      if (this.#closed) return;
      this.#app.setStanding(answer.progress);
      if (answer.task) this.#show(answer.task);
      else this.#over(answer.why, answer.progress);
    } catch (error) {
      this.#failed(error);
    }
  }

  #show(task) {
    this.#timing?.stop();
    const does = {
      send: (answer) => this.#send(answer),
      skip: () => this.#leave("skip", {}, "Skipped."),
      report: () => this.#report(),
      undo: () => this.#undo(),
      say: (text) => this.#app.say(text),
    };
    this.#item = new Item(task, does);
    this.#item.offerUndo(this.#last !== null);
    this.#main.replaceChildren(this.#item.node);
    this.#item.fit();
    this.#timing = new Timing(task, () => this.#app.wire.now(), {
      ontick: (times) => this.#tick(times),
      onover: () => this.#ranOut(),
    });
    this.#state = "item";
    scrollTo(0, 0);
    this.#item.title.focus({ preventScroll: true });
  }

  #tick(times) {
    this.#item.tick(times);
    // the newest answer counts after some seconds, and is not to be taken back any more
    if (this.#last && this.#last.until < this.#app.wire.now()) this.#last = null;
    this.#item.offerUndo(this.#last !== null);
  }

  async #send(answer) {
    if (this.#state !== "item") return;
    if (this.#timing.waitMs > 0) {
      this.#app.say(`Please read first: you can answer in ${Math.ceil(this.#timing.waitMs / 1000)} s.`);
      return;
    }
    if (this.#item.hindrance) {
      this.#app.say(this.#item.hindrance);
      return;
    }
    const { task } = this.#item;
    const body = { lease: task.lease, answer, ...this.#item.given, ms: this.#timing.ms };
    this.#freeze("sending");
    this.#last = { task, until: Infinity };
    const before = this.#undone.has(task.lease) ? [undoing(task.lease)] : [];
    const about = { ...this.#where, number: task.number, practice: task.practice, answer };
    try {
      await this.#app.outbox.put({ lease: task.lease, calls: [...before, { path: "vote", body }], about });
    } catch (error) {
      this.#freeze("item", false);
      this.#app.say(`Your browser could not keep the answer (${error}), so it was not sent.`);
      return;
    }
    if (this.#app.outbox.waiting.has(task.lease) && this.#item?.task === task) this.#kept();
  }

  // an answer got through, or was turned down; whether it was the one on this screen
  settled(entry, outcome) {
    if (entry.about.undo || this.#item?.task.lease !== entry.lease || !["sending", "waiting"].includes(this.#state)) return false;
    this.#undone.delete(entry.lease);
    if (outcome.refused) this.#turnedDown(outcome.refused);
    else this.#accepted(entry, outcome.result);
    return true;
  }

  #accepted(entry, result) {
    this.#app.worked();
    this.#app.setMoney(result.me);
    this.#app.setStanding(result.mine);
    if (result.practice) {
      this.#last = null;
      this.#panel(panels.practised(result.practice, () => this.next()));
      return;
    }
    if (this.#last) this.#last.until = result.undo_until_ms ?? 0;
    if (result.paid_at_ms) this.#app.lookAgain(result.paid_at_ms);
    this.#app.say(`Sent: ${answerInWords(entry.about.answer)}. ${payInWords(result, this.#item.task.pay_msat)}`);
    this.next();
  }

  // ---- taking back, leaving

  async #undo() {
    if (!this.#last || !["item", "waiting", "stopped"].includes(this.#state)) return;
    const { task } = this.#last;
    if (this.#app.outbox.waiting.has(task.lease)) {
      this.#last = null;
      this.#undone.add(task.lease);
      this.#show(task);
      // it may have arrived after all, only the answer did not
      await this.#app.outbox.put({ lease: task.lease, calls: [undoing(task.lease)], about: { ...this.#where, undo: true } });
      return;
    }
    const before = this.#state;
    const aside = before === "item" ? this.#item.task : null;
    this.#freeze("sending");
    try {
      const answer = await this.#app.wire.post("undo", { lease: task.lease });
      this.#last = null;
      this.#aside = aside;
      this.#app.setMoney(answer.me);
      this.#app.setStanding(answer.progress ?? answer.mine);
      this.#show(answer.task ?? task);
      this.#app.say("Taken back. Answer it again.");
    } catch (error) {
      if (!(error instanceof Unreachable)) this.#last = null;
      this.#freeze(before, false);
      this.#app.say(error instanceof Unreachable ? "No connection: nothing was taken back. Try again." : error.words);
    }
  }

  async #leave(path, extra, words) {
    if (this.#state !== "item") return;
    this.#freeze("sending");
    try {
      await this.#app.wire.post(path, { lease: this.#item.task.lease, ...extra });
      this.#app.say(words);
      this.next();
    } catch (error) {
      this.#freeze("item", false);
      if (error instanceof Unreachable) this.#app.say("No connection: nothing was sent. Try again.");
      else this.#turnedDown(error);
    }
  }

  async #report() {
    if (this.#state !== "item") return;
    const reason = await askReason();
    if (reason) await this.#leave("report", { reason }, "Reported. Thank you.");
  }

  // ---- what stands in place of an item

  #loading() {
    clearTimeout(this.#retry);
    this.#timing?.stop();
    this.#state = "loading";
    if (this.#item) this.#item.freeze(true);
    else this.#main.replaceChildren(el("p", { class: "quiet" }, "Fetching the first item …"));
  }

  #kept() {
    this.#panel(panels.kept(() => this.#app.outbox.hurry(), () => this.#undo()));
    this.#state = "waiting";
  }

  #ranOut() {
    if (this.#state === "item") this.#panel(panels.ranOut(() => this.next()));
  }

  #turnedDown(error) {
    this.#last = null;
    this.#panel(panels.turnedDown(error.words, () => this.next()));
  }

  #over(why, progress) {
    this.#panel(panels.over(why, progress, () => this.next(), this.#last && (() => this.#undo())));
  }

  #failed(error) {
    if (this.#closed) return;
    const isLost = error instanceof Unreachable;
    this.#panel(isLost ? panels.lost(() => this.next()) : panels.failed(error.words ?? String(error), () => this.next()));
    if (isLost) this.#retry = setTimeout(() => this.next(), RETRY_MS);
  }

  #panel(panel) {
    clearTimeout(this.#retry);
    this.#timing?.stop();
    this.#state = "stopped";
    this.#main.replaceChildren(panel);
    scrollTo(0, 0);
    panel.querySelector("h1").focus({ preventScroll: true });
  }

  #freeze(state, isFrozen = true) {
    this.#state = state;
    this.#item?.freeze(isFrozen);
  }

  #key(event) {
    const key = keyOf(event);
    if (!key) return;
    if (this.#state === "item" && this.#item.press(key, event)) event.preventDefault();
    else if (this.#state !== "item" && key === "u") this.#undo();
    else if (this.#state !== "item" && key === "Enter") this.#main.querySelector("[data-go]")?.click();
  }
}

const undoing = (lease) => ({ path: "undo", body: { lease }, mayFail: true });
