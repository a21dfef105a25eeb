// The first visit: what is asked here and what it pays, then a name, a key and, now or later, where sats are to go.
import { button, el, save } from "./dom.js";
import { create, restore } from "./key.js";
import { taskCard } from "./tasks.js";
import { Unreachable, Wire } from "./wire.js";

const LEAST_PASSPHRASE = 10;

const field = (label, given, hint = "") => {
  const input = el("input", given);
  return { input, node: el("label", {}, label, input, hint ? el("small", { class: "quiet" }, hint) : null) };
};

// password keepers file a passphrase under a name
const whose = () => el("input", { hidden: true, autocomplete: "username", value: "Shardwork key", name: "username" });

export class Welcome {
  #app;
  #where;
  // made once, so that pressing twice does not join twice
  #made = null;

  constructor(app, main, where) {
    this.#app = app;
    this.#where = where;
    this.said = el("p", { class: "alert", role: "alert", hidden: true });
    main.replaceChildren(
      el("h1", { tabindex: -1 }, "Judge answers, earn sats"),
      el("p", { class: "lead" }, "Models wrote answers; you say which is better. Each judgement is paid. You need no account: this browser makes a key, and that key is you."),
      (this.offer = el("div", { class: "offer" })),
      this.said,
      this.#joinForm(),
      this.#returnForm(),
    );
    this.#preview();
  }

  close() {}

  // what is open can be read before one has joined, under a key that is thrown away
  async #preview() {
    try {
      const guest = new Wire();
      guest.identity = await create();
      const { tasks } = await guest.get("tasks");
      const asked = tasks.filter((one) => !this.#where.job || (one.job === this.#where.job && one.stage === this.#where.stage));
      this.#app.setAsset(tasks);
      this.offer.replaceChildren(...asked.slice(0, 3).map((one) => taskCard(one, { isLink: false })));
    } catch {
      this.offer.replaceChildren(el("p", { class: "quiet" }, "What each task pays is shown before you begin with it."));
    }
  }

  #joinForm() {
    const name = field("Your name here", { name: "name", required: true, maxlength: 40, autocomplete: "nickname", dir: "auto" }, "Whoever runs this place sees it; other annotators don't.");
    const payout = field("Lightning address, may be given later", { name: "payout", type: "text", inputmode: "email", autocapitalize: "none", spellcheck: "false", autocomplete: "off", placeholder: "you@wallet.example" });
    const passphrase = field("Passphrase of the copy, ten letters at least", { name: "passphrase", type: "password", minlength: LEAST_PASSPHRASE, autocomplete: "new-password" });
    const invitation = field("Invitation, if you were given one", { name: "invitation", autocomplete: "off", value: this.#where.invitation ?? "" });
    const wants = el("input", { type: "checkbox", name: "copy", onchange: () => {
      passphrase.node.hidden = !wants.checked;
      passphrase.input.required = wants.checked;
    } });
    passphrase.node.hidden = true;
    invitation.node.hidden = !this.#where.invitation;
    this.invitation = invitation;
    const form = el(
      "form",
      { class: "card stack", id: "join" },
      whose(),
      el("h2", {}, "Begin"),
      name.node,
      payout.node,
      invitation.node,
      el("label", { class: "choice" }, wants, el("span", {}, "Save a copy of my key, for another phone or browser", el("small", { class: "quiet" }, "Only possible now. Without a copy the key stays in this browser: clear its data, and the key and its sats are gone."))),
      passphrase.node,
      el("button", { class: "pick" }, "Make my key and begin"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#guarded(form, () => this.#join(new FormData(form)));
    });
    return form;
  }

  #returnForm() {
    const file = field("The saved copy", { name: "file", type: "file", accept: ".json,application/json", required: true });
    const passphrase = field("Its passphrase", { name: "passphrase", type: "password", required: true, autocomplete: "current-password" });
    const form = el("form", { class: "stack", id: "return" }, whose(), file.node, passphrase.node, el("button", {}, "Go on with this key"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#guarded(form, async () => {
        const made = await restore(await file.input.files[0].text(), passphrase.input.value);
        await this.#enter(made, {});
      });
    });
    return el("details", { class: "card" }, el("summary", {}, "I was here before and saved a copy of my key"), form);
  }

  async #join(given) {
    const passphrase = given.get("copy") ? given.get("passphrase") : "";
    if (this.#made?.passphrase !== passphrase) this.#made = { ...(await create(passphrase)), passphrase };
    const body = { name: given.get("name").trim() };
    if (given.get("payout").trim()) body.payout = given.get("payout").trim();
    if (given.get("invitation").trim()) body.invitation = given.get("invitation").trim();
    if (this.#made.copy) save("shardwork-key.json", this.#made.copy);
    await this.#enter(this.#made, body);
  }

  // with a key that was here before, joining says who it is
  async #enter({ key, public: open }, body) {
    this.#app.wire.identity = { key, public: open };
    try {
      const joined = await this.#app.wire.post("join", body);
      await this.#app.enter({ key, public: open, name: joined.name, payout: joined.payout ?? "" });
    } catch (error) {
      this.#app.wire.identity = null;
      throw error;
    }
  }

  async #guarded(form, work) {
    const pressed = form.querySelector("button");
    if (pressed.disabled) return;
    pressed.disabled = true;
    this.said.hidden = true;
    try {
      await work();
    } catch (error) {
      if (error.code?.includes("invit")) this.invitation.node.hidden = false;
      this.said.textContent = error instanceof Unreachable ? "No connection: nothing was sent. Try again." : error.words ?? error.message;
      this.said.hidden = false;
    } finally {
      pressed.disabled = false;
    }
  }
}
