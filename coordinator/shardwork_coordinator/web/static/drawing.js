// Draws what a page holds as data: curves by round, and a cell for every shard of a phase. Colours are the style sheet's.
(() => {
  "use strict";
  const LETTERS = { d: "done", r: "running", w: "ready", t: "retrying", x: "exhausted" };
  //: title -> what was drawn of which data; a swap that brings the same data keeps the drawing
  const drawn = new Map();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(5)).toLocaleString("en"));

  const plot = (place) => {
    const chart = JSON.parse(place.dataset.chart);
    const strokes = [colour("--curve-1"), colour("--curve-2"), colour("--curve-3")];
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "12px system-ui" };
    const few = chart.data[0].length < 60;
    return new uPlot({
      width: Math.max(place.clientWidth, 200),
      height: 190,
      scales: { x: { time: false } },
      cursor: { y: false },
      legend: { live: true },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick : "")) }, { ...axis, size: 62, values: (_, ticks) => ticks.map(number) }],
      series: [{ label: "round", value: (_, value) => number(value) },
        ...chart.labels.map((label, index) => ({ label, stroke: strokes[index], width: 2, spanGaps: true, points: { show: few, size: 5 }, value: (_, value) => number(value) }))],
    }, chart.data, place);
  };

  const charts = () => {
    for (const place of document.querySelectorAll(".chart[data-chart]")) {
      const title = place.parentElement.querySelector("figcaption").textContent;
      const before = drawn.get(title);
      if (before && before.place !== place && before.data === place.dataset.chart && before.width === place.clientWidth) {
        place.replaceWith(before.place);
      } else if (!before || before.place !== place) {
        if (before) before.plot.destroy();
        drawn.set(title, { place, data: place.dataset.chart, width: place.clientWidth, plot: plot(place) });
      }
    }
  };

  const grid = (canvas) => {
    const letters = canvas.dataset.letters;
    const places = canvas.dataset.places ? JSON.parse(canvas.dataset.places) : null;
    const width = canvas.parentElement.clientWidth - 36;
    const cell = letters.length > 4000 ? 6 : letters.length > 600 ? 9 : 14;
    const across = Math.max(Math.floor(width / cell), 1);
    const down = Math.ceil(letters.length / across);
    const scale = window.devicePixelRatio || 1;
    canvas.width = across * cell * scale;
    canvas.height = down * cell * scale;
    canvas.style.width = `${across * cell}px`;
    canvas.style.height = `${down * cell}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const colours = Object.fromEntries(Object.entries(LETTERS).map(([letter, name]) => [letter, colour(`--shard-${name}`)]));
    for (let place = 0; place < letters.length; place += 1) {
      pen.fillStyle = colours[letters[place]];
      pen.fillRect((place % across) * cell, Math.floor(place / across) * cell, cell - 1, cell - 1);
    }
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left) / cell);
      const place = Math.floor((event.clientY - box.top) / cell) * across + column;
      return column >= 0 && column < across && place >= 0 && place < letters.length ? place : null;
    };
    canvas.onpointermove = (event) => {
      const place = at(event);
      const words = document.getElementById("pointed");
      if (words) words.textContent = place === null ? "" : `${places ? places[place].split("/").slice(-2).join(" ") : `shard ${place}`}: ${LETTERS[letters[place]]}`;
    };
    canvas.onclick = (event) => {
      const place = at(event);
      if (place === null) return;
      // what is not numbered from 0 has its places told
      location.assign(places ? canvas.dataset.path.split("/shards/")[0] + "/shards/" + places[place] : canvas.dataset.path + place);
    };
  };

  const draw = () => {
    charts();
    for (const canvas of document.querySelectorAll("canvas.grid")) grid(canvas);
  };
  const again = () => {
    for (const one of drawn.values()) one.plot.destroy();
    drawn.clear();
    draw();
  };

  // what somebody opened stays open over a swap
  let open = [];
  document.addEventListener("htmx:beforeSwap", () => {
    open = [...document.querySelectorAll("#live details[open] > summary")].map((one) => one.textContent);
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const summary of document.querySelectorAll("#live details > summary")) {
      if (open.includes(summary.textContent)) summary.parentElement.open = true;
    }
    draw();
  });
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(again, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  draw();
})();
