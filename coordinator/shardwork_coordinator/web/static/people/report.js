// The dialog in which an item is reported instead of judged: what is wrong with it, in one choice and maybe a few words.
import { button, el } from "./dom.js";

const REASONS = [
  "Personal data: names, addresses, numbers of real people",
  "Harmful, hateful or illegal",
  "Broken: empty, cut off or unreadable",
  "In a language that I can't judge",
  "Something else",
];

// the reason as text, or null when it was thought better of
export const askReason = () =>
  new Promise((resolve) => {
    const choices = REASONS.map((reason, at) =>
      el("label", { class: "choice" }, el("input", { type: "radio", name: "reason", value: reason, required: true, autofocus: at === 0 }), reason));
    const more = el("input", { maxlength: 300, autocomplete: "off", dir: "auto" });
    const form = el(
      "form",
      { method: "dialog", class: "stack" },
      el("h2", { id: "report-title" }, "Report this item"),
      el("p", { class: "quiet" }, "You skip it, and whoever runs this place hears why. It is not paid, and does not count against you."),
      el("fieldset", { class: "stack" }, el("legend", {}, "What is wrong with it?"), choices),
      el("label", {}, "In your words, if you like", more),
      el("div", { class: "row" }, el("button", { class: "pick" }, "Report and skip"), button("Back", () => dialog.close(), {})),
    );
    const dialog = el("dialog", { "aria-labelledby": "report-title" }, form);
    form.addEventListener("submit", () => {
      const reason = new FormData(form).get("reason");
      dialog.returnValue = [reason, more.value.trim()].filter((one) => one).join(" · ");
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
