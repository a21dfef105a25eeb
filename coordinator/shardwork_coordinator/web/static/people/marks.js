// Marks beside an answer, all optional: points from 1 to 5 for each answer, tags for the reason, a note. The rows of
// points are also what kind "score" asks.
import { button, el } from "./dom.js";

const POINTS = [1, 2, 3, 4, 5];
let groups = 0;

// a row of five; chosen() is 0 until one was taken
export const pointsOf = (label, onchange = () => {}) => {
  const name = `points-${(groups += 1)}`;
  const inputs = POINTS.map((value) => el("input", { type: "radio", name, value, onchange }));
  const choices = POINTS.map((value, at) => el("label", { class: "point" }, inputs[at], el("span", {}, String(value))));
  return {
    label,
    node: el("fieldset", { class: "points" }, el("legend", { dir: "auto" }, label), el("div", { class: "row" }, choices)),
    chosen: () => Number(inputs.find((one) => one.checked)?.value ?? 0),
    clear: () => {
      for (const one of inputs) one.checked = false;
      onchange();
    },
    choose: (value) => {
      inputs[value - 1].checked = true;
      inputs[value - 1].focus({ preventScroll: true });
      onchange();
    },
  };
};

// one scale: a row for each answer, all of them or none
const scaleOf = (name, answers) => {
  const clear = button("Clear", () => rows.forEach((row) => row.clear()), { class: "clear", hidden: true, "aria-label": `Clear ${name}` });
  const rows = answers.map((_, at) => pointsOf(`Answer ${at + 1}`, () => { clear.hidden = !rows.some((row) => row.chosen()); }));
  const node = el("fieldset", { class: "scale" }, el("legend", { dir: "auto" }, name), rows.map((row) => row.node), clear);
  return { name, node, values: () => rows.map((row) => row.chosen()), missing: () => rows.find((row) => !row.chosen())?.label };
};

export class Marks {
  #scales;
  #tags;
  #note = el("textarea", { rows: 2, maxlength: 1000, dir: "auto" });

  // scales: whether `task.scores` are asked here; kind "score" asks them as its answer
  constructor(task, { scales }) {
    this.#scales = scales ? (task.scores ?? []).map((name) => scaleOf(name, task.answers)) : [];
    this.#tags = (task.reasons ?? []).map((name) => ({ name, input: el("input", { type: "checkbox" }) }));
    this.node = this.#build();
  }

  // what keeps it from being sent, in words; empty when nothing does
  get hindrance() {
    const open = this.#scales.find((one) => one.values().some(Boolean) && one.missing());
    return open ? `“${open.name}” has no points for ${open.missing()}: give some, or clear it.` : "";
  }

  // what goes into the vote beside the answer; only what was given
  get given() {
    const scores = this.#scales.filter((one) => one.values().every(Boolean)).map((one) => [one.name, one.values()]);
    const reasons = this.#tags.filter(({ input }) => input.checked).map(({ name }) => name);
    const comment = this.#note.value.trim();
    return {
      ...(scores.length ? { scores: Object.fromEntries(scores) } : {}),
      ...(reasons.length ? { reasons } : {}),
      ...(comment ? { comment } : {}),
    };
  }

  #build() {
    const tags = this.#tags.map(({ name, input }) => el("label", { class: "tag" }, input, el("span", { dir: "auto" }, name)));
    return el(
      "section",
      { class: "marks", "aria-label": "If you like, before you answer" },
      tags.length || this.#scales.length ? el("p", { class: "quiet" }, "If you like, before you answer:") : null,
      tags.length ? el("fieldset", { class: "tags" }, el("legend", {}, "Why?"), el("div", { class: "row" }, tags)) : null,
      el("div", { class: "scales" }, this.#scales.map((one) => one.node)),
      el("details", {}, el("summary", {}, "Add a note"), el("label", {}, "Note for whoever asked", this.#note)),
    );
  }
}
