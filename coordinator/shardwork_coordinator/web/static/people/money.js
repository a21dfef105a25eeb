// Money: what was paid, what is held, where it goes; and what this browser is known by.
import { el } from "./dom.js";
import { setUsesKeys, usesKeys } from "./keys.js";
import { Unreachable } from "./wire.js";
import { many, sats } from "./words.js";

const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

export class Money {
  #app;
  #main;
  #closed = false;

  constructor(app, main) {
    this.#app = app;
    this.#main = main;
    app.guarded(this.#load());
  }

  close() {
    this.#closed = true;
  }

  async #load() {
    const { me } = await this.#app.tasks();
    if (this.#closed) return;
    this.said = el("p", { class: "said", role: "status" });
    this.#main.replaceChildren(
      el("h1", { tabindex: -1 }, "Your sats"),
      this.#app.isSimulated ? el("p", { class: "card warn" }, el("b", {}, "These sats are simulated. "), "They show how it works, are worth nothing, and reach no real wallet.") : "",
      el(
        "dl",
        { class: "facts" },
        fact("Paid to you", sats(me.paid_msat)),
        fact("Held", sats(me.held_msat)),
        fact("To be taken out", sats(me.available_msat)),
        fact("Judged", many(me.votes ?? 0, "item")),
      ),
      el("p", { class: "quiet" }, "Held: earned, and released once enough of your answers in that task were careful. The bar at the top says when."),
      this.said,
      this.#address(),
      this.#out(me),
      this.#key(),
    );
  }

  #address() {
    const input = el("input", { name: "address", required: true, maxlength: 320, inputmode: "email", autocapitalize: "none", spellcheck: "false", autocomplete: "off", placeholder: "you@wallet.example", value: this.#app.identity.payout ?? "" });
    const form = el("form", { class: "card stack", id: "payout" }, el("h2", {}, "Where sats go"), el("label", {}, "Lightning address", input), el("button", {}, "Save this address"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#does(form, async () => {
        const answer = await this.#app.wire.post("payout", { address: input.value.trim() });
        await this.#app.setPayout(answer.payout);
        await this.#load();
        return "The address is saved.";
      });
    });
    return form;
  }

  #out(me) {
    const { payout: address } = this.#app.identity;
    const some = me.available_msat >= 1000;
    const words = !some ? "There is nothing to take out yet." : address ? `They go to ${address}, less what the way costs.` : "Save an address first.";
    const form = el(
      "form",
      { class: "card stack", id: "withdraw" },
      el("h2", {}, "Take them out"),
      el("p", { dir: "auto" }, words),
      el("button", { class: "pick", disabled: !some || !address }, some ? `Take out ${sats(me.available_msat)}` : "Take out"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#does(form, async () => {
        // 0 is all that can be paid: what the payment itself costs is taken off there
        const { payout } = await this.#app.wire.post("withdraw", { msat: 0 });
        await this.#load();
        return `${sats(payout.msat)} are on their way to ${payout.address}.`;
      });
    });
    return form;
  }

  #key() {
    const { name, public: open } = this.#app.identity;
    const keys = el("input", { type: "checkbox", checked: usesKeys(), onchange: () => setUsesKeys(keys.checked) });
    return el(
      "section",
      { class: "card stack", "aria-labelledby": "who" },
      el("h2", { id: "who" }, "Who you are here"),
      el("p", {}, el("bdi", {}, name), ", known by the key ", el("code", {}, open), "."),
      el("p", { class: "quiet" }, "The key was made in this browser and stays in it. Clearing the browser's data for this page takes it away; what is on it can then only be reached with the copy, if you saved one."),
      el("label", { class: "choice" }, keys, "Answer with single keys (1, 2, s, …)"),
    );
  }

  async #does(form, work) {
    const pressed = form.querySelector("button");
    if (pressed.disabled) return;
    pressed.disabled = true;
    try {
      const text = await work();
      this.said.textContent = text;
    } catch (error) {
      this.said.textContent = error instanceof Unreachable ? "No connection: nothing was sent. Try again." : error.words ?? String(error);
    } finally {
      pressed.disabled = false;
    }
  }
}
