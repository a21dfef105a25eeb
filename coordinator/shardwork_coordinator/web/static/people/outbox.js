// The outbox: answers on their way. Each is kept in this browser before it is sent, and dropped once the coordinator has
// answered; so a lost line, a closed page or a flat battery loses none. Sending twice is harmless: the coordinator gives
// the same answer to the same call.
import { vault } from "./vault.js";
import { Refused, Unreachable } from "./wire.js";

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;

export class Outbox {
  // onsettled(entry, {result} | {refused}): an answer got through, or was turned down; onchange(): how many wait changed
  onsettled = () => {};
  onchange = () => {};
  waiting = new Set();
  #wire;
  #wait = FIRST_WAIT_MS;
  #timer = 0;
  #sending = null;

  constructor(wire) {
    this.#wire = wire;
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.hurry();
    });
  }

  // entry: {lease, calls: [{path, body, mayFail}], about}; another for the same lease takes the place of the first
  async put(entry) {
    await vault.keep({ ...entry, turn: crypto.randomUUID() });
    this.waiting.add(entry.lease);
    await this.flush();
  }

  // sends all that is kept; one at a time, however often it is called
  flush() {
    this.#sending ??= this.#sendAll().finally(() => { this.#sending = null; });
    return this.#sending;
  }

  hurry() {
    if (!this.waiting.size) return;
    this.#wait = FIRST_WAIT_MS;
    this.flush();
  }

  async #sendAll() {
    clearTimeout(this.#timer);
    for (let entries = await vault.kept(); ; entries = await vault.kept()) {
      this.waiting = new Set(entries.map((one) => one.lease));
      this.onchange();
      if (!entries.length) return;
      const outcome = await this.#send(entries[0]);
      if (!outcome) return this.#later();
      if (await vault.drop(entries[0])) this.#settle(entries[0], outcome);
    }
  }

  #settle(entry, outcome) {
    this.waiting.delete(entry.lease);
    this.#wait = FIRST_WAIT_MS;
    this.onsettled(entry, outcome);
  }

  async #send(entry) {
    let result = null;
    for (const call of entry.calls) {
      try {
        result = await this.#wire.post(call.path, call.body);
      } catch (error) {
        if (error instanceof Unreachable) return null;
        if (!(error instanceof Refused)) throw error;
        if (error.status === 429) return null;
        if (!call.mayFail) return { refused: error };
      }
    }
    return { result };
  }

  #later() {
    this.#timer = setTimeout(() => this.flush(), this.#wait);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
  }
}
