// Resting: how long somebody has judged without a break, and whether to say so. Told of each answer; nothing is sent.
const WORK_MS = 45 * 60_000;
const BREAK_MS = 5 * 60_000;

export class Resting {
  #since = -Infinity;
  #last = -Infinity;

  // an answer was given at this moment; whether a break is due
  isDue(ms) {
    if (ms - this.#last >= BREAK_MS) this.#since = ms;
    this.#last = ms;
    return ms - this.#since >= WORK_MS;
  }
}
