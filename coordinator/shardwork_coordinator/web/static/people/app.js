// The annotator's page: which screen is shown, and what stays on every one of them: sats, progress, the connection.
// Screens are made of (app, main, where) and closed when another takes their place.
import { el } from "./dom.js";
import { History } from "./history.js";
import { Judging } from "./judging.js";
import { hindrance } from "./key.js";
import { Money } from "./money.js";
import { Outbox } from "./outbox.js";
import { Resting } from "./resting.js";
import { Intro, Tasks } from "./tasks.js";
import { vault } from "./vault.js";
import { Welcome } from "./welcome.js";
import { Unreachable, Wire } from "./wire.js";
import { many, sats, standingInWords } from "./words.js";

const SCREENS = { tasks: Tasks, history: History, money: Money };
const at = (id) => document.getElementById(id);
const setText = (id, text) => {
  if (at(id).textContent !== text) at(id).textContent = text;
};

class App {
  wire = new Wire();
  outbox = new Outbox(this.wire);
  identity = null;
  isSimulated = false;
  #screen = null;
  #isReached = true;
  #resting = new Resting();

  async start() {
    const why = await hindrance();
    if (why) return this.#refuse("This browser can't be used here", why);
    try {
      this.identity = (await vault.identity()) ?? null;
    } catch (error) {
      return this.#refuse("This browser keeps nothing", `Your key would be lost: ${error}. Leave private browsing, or use another browser.`);
    }
    this.wire.identity = this.identity;
    this.wire.onstranger = () => this.#joinAgain();
    this.wire.onreach = (isReached) => this.#reach(isReached);
    this.outbox.onchange = () => this.#connection();
    this.outbox.onsettled = (entry, outcome) => this.#settled(entry, outcome);
    addEventListener("hashchange", () => this.#route());
    // addresses after # are screens here, so this one is followed by hand
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault();
      at("main").focus();
    });
    this.#route();
    if (this.identity) await this.outbox.flush();
  }

  // ---- who is here

  async enter(identity) {
    await vault.setIdentity(identity);
    this.identity = identity;
    this.wire.identity = identity;
    // so that the browser does not clear the key away when it needs room
    navigator.storage?.persist?.();
    this.#route();
  }

  async setPayout(payout) {
    this.identity = { ...this.identity, payout };
    await vault.setIdentity(this.identity);
  }

  // the coordinator has forgotten this key, or is another one than before
  async #joinAgain() {
    const { name, payout } = this.identity;
    await this.wire.post("join", payout ? { name, payout } : { name });
  }

  // ---- what is always on the screen

  async tasks() {
    const answer = await this.wire.get("tasks");
    this.setAsset(answer.tasks);
    this.setMoney(answer.me);
    return answer;
  }

  // what an invitation opens, for somebody who was here before it came
  async invited(invitation) {
    if (!invitation) return [];
    await this.wire.post("join", { invitation });
    return (await this.tasks()).tasks;
  }

  // an answer is paid some seconds after it was given: then the sums at the top are asked for again
  lookAgain(atMs) {
    clearTimeout(this.looking);
    this.looking = setTimeout(() => this.tasks().catch(() => {}), Math.max(atMs - this.wire.now(), 0) + 2_000);
  }

  setAsset(tasks) {
    if (!tasks.length) return;
    this.isSimulated = tasks.some((one) => one.asset === "simulated");
    at("simulated").hidden = !this.isSimulated;
  }

  setMoney(me) {
    if (!me) return;
    setText("paid", `${sats(me.paid_msat)} paid`);
    setText("held", `${sats(me.held_msat)} held`);
    at("sats").hidden = false;
  }

  setStanding(mine) {
    if (!mine) return;
    const isProbation = mine.state === "probation" && mine.cleared_at > 0;
    at("standing").hidden = false;
    setText("standing-words", [mine.done && !isProbation ? `${many(mine.done, "item")} judged.` : "", standingInWords(mine)].join(" "));
    at("standing-bar").hidden = !isProbation;
    if (!isProbation) return;
    at("standing-bar").max = mine.cleared_at;
    at("standing-bar").value = Math.min(mine.done ?? 0, mine.cleared_at);
  }

  // an answer was given: after long work a line says that nothing is lost by a break
  worked() {
    at("rest").hidden = !this.#resting.isDue(performance.now());
  }

  // read out by screen readers, and shown for a while
  say(text) {
    setText("said", text);
    at("said").dataset.fresh = "";
    clearTimeout(this.saying);
    this.saying = setTimeout(() => delete at("said").dataset.fresh, 4_000);
  }

  #reach(isReached) {
    this.#isReached = isReached;
    this.#connection();
  }

  #connection() {
    const kept = this.outbox.waiting.size;
    const lost = "No connection to the coordinator.";
    const words = kept ? `${lost} ${many(kept, "answer is", "answers are")} kept on this device and sent by itself later.` : `${lost} Nothing is lost.`;
    at("connection").hidden = this.#isReached;
    // what was said before the line was lost would stand over it
    if (!this.#isReached) delete at("said").dataset.fresh;
    setText("connection", this.#isReached ? "" : words);
  }

  #settled(entry, outcome) {
    if (this.#screen?.settled?.(entry, outcome) || entry.about.undo) return;
    this.setMoney(outcome.result?.me);
    if (outcome.refused) this.say(`An answer that was kept did not count. ${outcome.refused.words}`);
    else this.say("An answer that was kept has been sent.");
  }

  // ---- screens

  #route() {
    const where = address(location.hash);
    const isHome = !where.job && !where.screen;
    this.#screen?.close();
    at("standing").hidden = at("rest").hidden = true;
    document.body.dataset.screen = where.isJudging ? "judging" : (where.screen ?? (where.job ? "intro" : "tasks"));
    document.body.dataset.known = this.identity ? "yes" : "no";
    for (const link of document.querySelectorAll("nav a")) {
      const isHere = link.hash === (isHome ? "#tasks" : location.hash);
      link.toggleAttribute("aria-current", isHere);
      if (isHere) link.setAttribute("aria-current", "page");
    }
    this.#screen = this.#open(where);
  }

  #open(where) {
    const main = at("main");
    if (!this.identity) return new Welcome(this, main, where);
    main.replaceChildren(el("p", { class: "quiet" }, "One moment …"));
    if (where.isJudging) {
      at("leave").href = `#${encodeURIComponent(where.job)}/${encodeURIComponent(where.stage)}`;
      this.guarded(this.tasks());
      return new Judging(this, main, { job: where.job, stage: where.stage });
    }
    if (where.job) return new Intro(this, main, where);
    return new (SCREENS[where.screen] ?? Tasks)(this, main);
  }

  // a screen that could not be filled says so instead of staying empty
  async guarded(work) {
    try {
      await work;
    } catch (error) {
      const words = error instanceof Unreachable ? "No connection. Try again when there is one." : (error.words ?? String(error));
      this.say(words);
      if (document.body.dataset.screen === "judging") return;
      const again = el("button", { type: "button", class: "pick", onclick: () => this.#route() }, "Try again");
      at("main").replaceChildren(el("section", { class: "card panel warn" }, el("h1", { tabindex: -1 }, "This did not work"), el("p", {}, words), el("div", { class: "row" }, again)));
    }
  }

  #refuse(title, why) {
    at("main").replaceChildren(el("section", { class: "card panel warn" }, el("h1", {}, title), el("p", {}, why)));
  }
}

// #JOB/STAGE, #JOB/STAGE/judge, #JOB/STAGE?INVITATION (or, in links of before, /INVITATION), #tasks, #history, #money
const address = (hash) => {
  const [path, invitation] = hash.slice(1).split("?");
  const [first, stage, last] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  if (!stage) return { screen: first in SCREENS ? first : undefined, invitation };
  return { job: first, stage, isJudging: last === "judge", invitation: invitation ?? (last === "judge" ? undefined : last) };
};

new App().start();
