// The wire: signed calls to the coordinator. A call is answered, refused with a sentence, or never arrives; callers tell
// these apart, for what never arrived is sent again.
import { digest, signature } from "./key.js";

const BASE = "/people/api/";
const PATIENCE_MS = 20_000;

export class Refused extends Error {
  constructor(status, answer) {
    super(answer?.sentence || `The coordinator answered with ${status}.`);
    this.status = status;
    this.code = answer?.code ?? "";
    this.nextStep = answer?.next_step ?? "";
  }

  get words() {
    return [this.message, this.nextStep].filter((one) => one).join(" ");
  }
}

export class Unreachable extends Error {}

export class Wire {
  // ahead: how far the coordinator's clock is ahead of this one; phones are often minutes off, signatures carry the time
  identity = null;
  ahead = 0;
  onreach = () => {};
  // joins a key that the coordinator does not know; whoever has none leaves it out
  onstranger = null;

  now() {
    return Date.now() + this.ahead;
  }

  get(path) {
    return this.#call("GET", path, "");
  }

  post(path, body) {
    return this.#call("POST", path, JSON.stringify(body));
  }

  async #call(method, path, body, again = true) {
    const answer = await this.#send(method, BASE + path, body);
    if (answer.ok) return this.#read(answer);
    // the coordinator stumbles or is starting: as good as not reached
    if (answer.status >= 500 || answer.status === 408) throw this.#lost(`The coordinator answered with ${answer.status}.`);
    const isClock = this.#setClock(answer);
    if (isClock && again && answer.status < 404) return this.#call(method, path, body, false);
    this.onreach(true);
    const refused = new Refused(answer.status, await answer.json().catch(() => null));
    if (refused.code !== "people.not_joined" || !this.onstranger || !again) throw refused;
    await this.onstranger();
    return this.#call(method, path, body, false);
  }

  async #send(method, path, body) {
    const headers = body ? { "Content-Type": "application/json" } : {};
    if (this.identity) Object.assign(headers, await this.#signed(method, path, body));
    try {
      const signal = AbortSignal.timeout(PATIENCE_MS);
      return await fetch(path, { method, headers, signal, cache: "no-store", body: body || undefined });
    } catch (error) {
      throw this.#lost(String(error));
    }
  }

  async #signed(method, path, body) {
    const time = String(Math.round(this.now()));
    const text = ["shardwork-people-v1", method, path, time, await digest(body)].join("\n");
    const { key, public: open } = this.identity;
    return { "Shardwork-Key": open, "Shardwork-Time": time, "Shardwork-Signature": await signature(key, text) };
  }

  async #read(answer) {
    this.#setClock(answer);
    try {
      const found = await answer.json();
      this.onreach(true);
      return found;
    } catch (error) {
      throw this.#lost(String(error));
    }
  }

  #lost(text) {
    this.onreach(false);
    return new Unreachable(text);
  }

  // true when this device's clock was wrong enough to make a signature look old; Date has whole seconds
  #setClock(answer) {
    const said = Date.parse(answer.headers.get("Date") ?? "");
    if (Number.isNaN(said)) return false;
    const ahead = said + 500 - Date.now();
    const isFar = Math.abs(ahead - this.ahead) > 60_000;
    if (isFar || Math.abs(ahead - this.ahead) > 2_000) this.ahead = ahead;
    return isFar;
  }
}
