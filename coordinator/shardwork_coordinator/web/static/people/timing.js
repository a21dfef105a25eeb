// Timing of one item: how long it was really looked at, when it may be answered, and when its time is over.

// a second press that was meant for the item before
const FLOOR_MS = 400;
// less than this left is said
const SHORT_MS = 60_000;

export class Timing {
  #seen = 0;
  #since = 0;
  #ticking = 0;
  #turn = () => this.#look();

  // ontick({wait, left}): seconds until it may be answered, and until it is over (null: plenty); onover(): it is over
  constructor(task, now, { ontick, onover }) {
    this.least = Math.max(task.least_ms ?? 0, FLOOR_MS);
    this.expires = task.expires_ms ?? Infinity;
    this.now = now;
    this.ontick = ontick;
    this.onover = onover;
    this.#since = document.hidden ? 0 : performance.now();
    document.addEventListener("visibilitychange", this.#turn);
    this.#ticking = setInterval(() => this.#tick(), 250);
    this.#tick();
  }

  // milliseconds that the page was in sight; a tab in the background reads nothing
  get ms() {
    return Math.round(this.#seen + (this.#since ? performance.now() - this.#since : 0));
  }

  get waitMs() {
    return Math.max(this.least - this.ms, 0);
  }

  stop() {
    clearInterval(this.#ticking);
    document.removeEventListener("visibilitychange", this.#turn);
  }

  #look() {
    if (document.hidden) {
      this.#seen = this.ms;
      this.#since = 0;
    } else {
      this.#since ||= performance.now();
    }
  }

  #tick() {
    const left = this.expires - this.now();
    if (left <= 0) {
      this.stop();
      this.onover();
      return;
    }
    this.ontick({ wait: Math.ceil(this.waitMs / 1000), left: left < SHORT_MS ? left / 1000 : null });
  }
}
