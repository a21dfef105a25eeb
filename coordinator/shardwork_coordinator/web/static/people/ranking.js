// Kind "rank": several answers, put in order with the best on top: dragged, moved by buttons, or by keys. Typing 3, 1, 2
// puts the third first, then the first, then the second.
import { button, el } from "./dom.js";
import { answerBox } from "./compare.js";

export const ranking = (task, send, say) => {
  const list = el("ol", { class: "answers ranked" });
  let typed = 0;
  const order = () => [...list.children].map((one) => Number(one.dataset.at));
  const told = () => say(`From best to worst: ${order().map((at) => at + 1).join(", ")}.`);

  const place = (card, index, focus = null) => {
    const others = [...list.children].filter((one) => one !== card);
    list.insertBefore(card, others[Math.max(0, Math.min(index, others.length))] ?? null);
    marked();
    told();
    focus?.focus();
  };
  const indexOf = (card) => [...list.children].indexOf(card);
  const marked = () => {
    [...list.children].forEach((card, index, all) => {
      const rank = index === 0 ? "Best" : index === all.length - 1 ? "Worst" : `Place ${index + 1}`;
      card.querySelector(".rank").textContent = rank;
      card.querySelector(".up").disabled = index === 0;
      card.querySelector(".down").disabled = index === all.length - 1;
    });
  };

  const cardOf = (text, at) => {
    const name = `Answer ${at + 1}`;
    const move = (by) => (event) => {
      const chosen = event.currentTarget;
      place(card, indexOf(card) + by);
      // a button that has reached its end can't keep the focus
      (chosen.disabled ? card.querySelector(by < 0 ? ".down" : ".up") : chosen).focus();
    };
    const tools = el(
      "div",
      { class: "tools" },
      el("b", { class: "rank" }),
      button("↑", move(-1), { class: "up", "aria-label": `${name}: better` }),
      button("↓", move(1), { class: "down", "aria-label": `${name}: worse` }),
      el("span", { class: "drag", "aria-hidden": "true" }, "⠿"),
    );
    const card = el("li", { "data-at": at }, answerBox(text, name, [tools]));
    draggable(card);
    return card;
  };

  const draggable = (card) => {
    const handle = card.querySelector(".drag");
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.setPointerCapture(event.pointerId);
      card.classList.add("dragged");
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const others = [...list.children].filter((one) => one !== card);
      const below = others.findIndex((one) => {
        const box = one.getBoundingClientRect();
        return event.clientY < box.top + box.height / 2;
      });
      const index = below < 0 ? others.length : below;
      // moving an element lets go of the pointer, so it is taken again
      if (index !== indexOf(card)) {
        place(card, index);
        handle.setPointerCapture(event.pointerId);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      handle.addEventListener(name, () => card.classList.remove("dragged"));
    }
  };

  list.append(...task.answers.map(cardOf));
  marked();
  const done = () => send({ ranking: order() });
  return {
    body: list,
    main: [button([el("span", {}, "Send this order"), el("kbd", { "aria-hidden": "true" }, "Enter")], done, { class: "pick" })],
    small: [],
    press: (key, event) => {
      const at = Number(key) - 1;
      const focused = document.activeElement?.closest?.(".ranked > li");
      if (Number.isInteger(at) && at >= 0 && at < task.answers.length) {
        const card = list.querySelector(`[data-at="${at}"]`);
        // a second time in one row begins anew
        if (indexOf(card) < typed) typed = 0;
        place(card, typed, card.querySelector(".text"));
        typed += 1;
        return true;
      }
      if (focused && (key === "ArrowUp" || key === "ArrowDown") && (event.altKey || event.shiftKey)) {
        place(focused, indexOf(focused) + (key === "ArrowUp" ? -1 : 1), document.activeElement);
        return true;
      }
      if (key === "Enter" && document.activeElement?.tagName !== "BUTTON") {
        done();
        return true;
      }
      return false;
    },
  };
};
