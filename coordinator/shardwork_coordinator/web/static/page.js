// What a page does by itself: ages move on, a lost connection is said and mended, and a page that shows live figures asks
// for itself again when something changed. htmx swaps what comes.
(() => {
  "use strict";
  // the coordinator is heard at least every 5 s; after this it counts as gone
  const SILENCE_MS = 15000;
  const root = document.documentElement;
  const shown = document.getElementById("connection");
  let ahead = Number(document.getElementById("beat").dataset.now) - Date.now();
  let heard = Date.now();
  let asOf = new Date();
  let source = null;

  // the same words as rows.age
  const age = (ms) => {
    const seconds = Math.floor(Math.max(ms, 0) / 1000);
    if (seconds < 2) return "now";
    if (seconds < 60) return `${seconds} s ago`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
    return `${Math.floor(seconds / 86400)} d ago`;
  };

  const tick = () => {
    for (const one of document.querySelectorAll("time[datetime]")) {
      const text = age(Date.now() + ahead - Date.parse(one.dateTime));
      if (one.textContent !== text) one.textContent = text;
    }
  };
  tick();
  setInterval(tick, 1000);
  // before the browser paints what was swapped in
  document.addEventListener("htmx:afterSwap", tick);
  // a page without a stream says nothing of a connection
  if (!shown) return;

  const show = (state, text) => {
    if (shown.textContent !== text) shown.textContent = text;
    root.dataset.connection = state;
  };
  const lost = () => show("lost", `Reconnecting. This is from ${asOf.toLocaleTimeString()}.`);

  document.addEventListener("htmx:sseOpen", (event) => { source = event.detail.source; });
  document.addEventListener("htmx:sseError", lost);
  // a message is believed, an open connection alone is not
  document.addEventListener("htmx:sseBeforeMessage", (event) => {
    heard = Date.now();
    if (event.detail.type !== "beat") return;
    asOf = new Date();
    ahead = Number(event.detail.data) - Date.now();
    show("live", "Live");
  });

  // a part that nobody sees, or in which somebody is about to do something, stays as it is until that is over
  let late = null;
  const rests = (part) => document.hidden || part.querySelector("details.deed[open]") !== null;
  document.addEventListener("htmx:beforeRequest", (event) => {
    const part = event.target;
    if (!part.matches || !part.matches("[data-live]")) return;
    late = rests(part) ? part : null;
    if (late) event.preventDefault();
  });
  const catchUp = () => {
    if (late && !rests(late)) htmx.trigger(late, "sse:changed");
  };
  document.addEventListener("visibilitychange", catchUp);
  // this one does not bubble
  document.addEventListener("toggle", catchUp, true);
  // what an answer brings beside its part: unchanged, it keeps the focus that it may have, and an open form stays
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, fragment } = event.detail;
    const isSame = fragment.firstElementChild?.outerHTML === target.outerHTML;
    if (isSame || target.querySelector("details[open]")) event.detail.shouldSwap = false;
  });
  // signed out elsewhere: the answer is the login page, and not a part of this one
  document.addEventListener("htmx:beforeSwap", (event) => {
    const answer = event.detail.xhr;
    if (answer && new URL(answer.responseURL).pathname === "/login") {
      event.detail.shouldSwap = false;
      location.reload();
    }
  });

  setInterval(() => {
    if (Date.now() - heard <= SILENCE_MS) return;
    lost();
    heard = Date.now();
    // a connection that died without a word: closing it makes the extension open another
    if (source && source.readyState !== EventSource.CLOSED) {
      source.close();
      source.onerror(new Event("error"));
    }
  }, 1000);
  show("connecting", "Connecting");
})();
