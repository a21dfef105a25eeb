// Words: how money, time, answers and states are said to somebody who reads them for the first time.

export const sats = (msat) => {
  const value = (msat ?? 0) / 1000;
  return `${value.toLocaleString("en", { maximumFractionDigits: 3 })} sat`;
};

export const many = (number, one, more = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : more}`;

export const span = (seconds) => {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
};

// 75 -> 1:15
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

// a guideline's length before it is opened: people read about 200 words a minute
export const reading = (text) => {
  const words = (text ?? "").split(/\s+/).filter((one) => one).length;
  if (!words) return "none";
  return words < 100 ? many(words, "word") : `${many(words, "word")}, ${span((words / 200) * 60)} to read`;
};

export const KINDS = {
  compare: "Say which of two answers is better.",
  rank: "Put some answers in order, the best first.",
  score: "Give an answer points from 1 to 5.",
  review: "Keep a text, throw it away, or mend it.",
};

const WINNERS = { a: "The first is better", b: "The second is better", tie: "Equally good", both_bad: "Both bad" };
const VERDICTS = { keep: "Keep", discard: "Throw away", edit: "Mended" };

export const answerInWords = (answer) => {
  if (!answer) return "No answer";
  if (answer.winner) return WINNERS[answer.winner] ?? String(answer.winner);
  if (answer.verdict) return VERDICTS[answer.verdict] ?? String(answer.verdict);
  if (answer.ranking) return `Order ${answer.ranking.map((one) => one + 1).join(", ")}`;
  if (answer.scores) return Object.entries(answer.scores).map(([name, value]) => `${name} ${value}`).join(", ");
  return "Answered";
};

const STATES = { rejected: "not paid", expired: "ran out of time" };
export const stateInWords = (state) => STATES[state] ?? String(state ?? "");

// when the pay that is held is released; the standing is the server's
export const standingInWords = (mine) => {
  if (!mine) return "";
  if (mine.state === "stopped") return `Stopped: ${sentenceOf(mine.why) || "your answers did not pass the checks."}`;
  if (mine.state === "cleared") return "Every answer is paid at once.";
  const left = Math.max((mine.cleared_at ?? 0) - (mine.done ?? 0), 0);
  if (!mine.cleared_at) return "Pay is held at first.";
  return left ? `Held until ${mine.cleared_at} judged: ${left} to go.` : "Held: your answers are being checked.";
};

// what an answer brought; in a standing in which answers are paid at once, they are so once they can't be taken back
export const payInWords = (result, msat) => {
  if (result.state === "rejected") return "Not paid.";
  if (result.state === "paid") return `${sats(msat)} paid.`;
  return result.paid_at_ms ? `${sats(msat)}, paid in some seconds.` : `${sats(msat)} held.`;
};

// a reason is a text, or {"sentence", "next_step"}
export const sentenceOf = (why) => {
  if (!why) return "";
  if (typeof why === "string") return why;
  return [why.sentence, why.next_step].filter((one) => one).join(" ");
};

export const moment = (ms) => new Date(ms).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
