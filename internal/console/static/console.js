"use strict";
// Keeps the overview up to date. All other pages work without a script.
(() => {
  const field = document.getElementById("find");
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      field.focus();
    }
  });

  const board = document.getElementById("board");
  if (!board) return;
  const status = document.querySelector("[data-live]");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const HISTORY = 900;
  const series = {
    rate: [["rate", "--accent"]],
    lag: [["lag", "--accent"]],
    latency: [["p50", "--accent"], ["p99", "--second"]],
  };
  let points = [];
  const charts = {};

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const round = (n) => (n === null || n === undefined ? "–" : n >= 100 ? n.toFixed(0) : n >= 1 ? n.toFixed(1) : n.toFixed(2));
  const data = (name) => [points.map((p) => p.t), ...series[name].map(([key]) => points.map((p) => p[key] ?? null))];

  function draw() {
    for (const box of document.querySelectorAll("[data-chart]")) {
      const name = box.dataset.chart;
      if (charts[name]) charts[name].destroy();
      const axis = { stroke: color("--faint"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
      const clock = (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString([], { hour12: false }));
      charts[name] = new uPlot({
        width: box.clientWidth,
        height: box.clientHeight,
        cursor: { y: false, drag: { x: false, y: false } },
        legend: { show: false },
        scales: { y: { range: (_, min, max) => [0, Math.max(max * 1.1, 0.1)] } },
        axes: [{ ...axis, values: clock, size: 24, space: 70 }, { ...axis, size: 46 }],
        series: [{}, ...series[name].map(([key, stroke]) => ({ label: key, stroke: color(stroke), width: 1.5, points: { show: false }, spanGaps: true }))],
      }, data(name), box);
    }
  }

  function show() {
    for (const name in charts) charts[name].setData(data(name));
    const last = points[points.length - 1];
    if (!last) return;
    for (const out of document.querySelectorAll("[data-now]")) {
      const key = out.dataset.now;
      out.textContent = key === "p99" ? `p50 ${round(last.p50)}, p99 ${round(last.p99)}` : round(last[key]);
    }
  }

  // What somebody has selected or is about to press stays where it is.
  const busy = () => board.contains(document.activeElement) || (!getSelection().isCollapsed && board.contains(getSelection().anchorNode));

  function say(text) {
    status.textContent = text;
    status.hidden = text === "";
  }

  draw();
  dark.addEventListener("change", () => { draw(); show(); });
  new ResizeObserver(() => {
    for (const box of document.querySelectorAll("[data-chart]")) charts[box.dataset.chart].setSize({ width: box.clientWidth, height: box.clientHeight });
  }).observe(document.querySelector(".charts"));

  let source;
  function connect() {
    source = new EventSource(board.dataset.liveUrl);
    source.addEventListener("history", (event) => {
      points = JSON.parse(event.data);
      say("");
      show();
    });
    source.addEventListener("point", (event) => {
      points.push(JSON.parse(event.data));
      if (points.length > HISTORY) points.shift();
      show();
    });
    source.addEventListener("board", (event) => {
      if (!busy()) board.innerHTML = JSON.parse(event.data);
    });
    source.addEventListener("error", () => {
      say("Not up to date: the relay does not answer. Trying again.");
      // A browser gives up when it is answered with anything but a stream.
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
    });
  }
  connect();
})();
