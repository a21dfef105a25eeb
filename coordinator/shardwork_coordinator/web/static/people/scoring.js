// Kind "score": one answer, points from 1 to 5 on each scale. Digits fill the scales one after the other.
import { button, el } from "./dom.js";
import { answerBox } from "./compare.js";
import { pointsOf } from "./marks.js";

export const scoring = (task, send, say) => {
  const scales = task.scores.map((name) => ({ name, points: pointsOf(name) }));
  const done = () => {
    const open = scales.find(({ points }) => !points.chosen());
    if (open) {
      say(`“${open.name}” has no points yet.`);
      return;
    }
    send({ scores: Object.fromEntries(scales.map(({ name, points }) => [name, points.chosen()])) });
  };
  const help = "1 is worst, 5 is best.";
  const node = el("section", { class: "marks asked", "aria-label": "Points" }, el("p", { class: "quiet" }, help));
  node.append(...scales.map(({ points }) => points.node));
  return {
    body: el("div", { class: "answers" }, task.answers.map((text) => answerBox(text, "Answer")), node),
    main: [button([el("span", {}, "Send these points"), el("kbd", { "aria-hidden": "true" }, "Enter")], done, { class: "pick" })],
    small: [],
    press: (key) => {
      if (/^[1-5]$/.test(key)) {
        const open = scales.find(({ points }) => !points.chosen()) ?? scales.at(-1);
        open.points.choose(Number(key));
        say(`${open.name}: ${key}.`);
        return true;
      }
      if (key === "Backspace") {
        scales.findLast(({ points }) => points.chosen())?.points.clear();
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
