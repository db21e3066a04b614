"use strict";
// The live page. One web socket brings everything: text messages are numbers, binary ones are frames. Each message
// is answered when it has been shown, so that the server sends no more than this page can take.

const $ = (id) => document.getElementById(id);
const GONE = new Set(["lost", "failed", "stalled"]);
const AWAY = new Set([...GONE, "silent", "ended"]);
const QUIET = new Set(["ended", "enter", "leave", "dwell", "crossing", "alarm-over"]); // news, but no fault
const KINDS = { "size-changed": "new size", overexposed: "over-exposed", "sink-failed": "output failed" };

let hello = null; // what the run is
let now = null; // the latest numbers
let minutes = null; // the latest charts
let over = false; // the run has ended, and no other has begun
let selected = null; // number of the camera that is looked at; null for all of them
let socket = null;
let retryMs = 500;
let pointer = null; // where in the charts the pointer is, 0..1

// ---------------------------------------------------------------- the link

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/live`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") {
      try {
        take(JSON.parse(data));
      } finally {
        tell({ done: "text" });
      }
    } else {
      showFrame(data).finally(() => tell({ done: "frame" }));
    }
  };
  socket.onclose = ({ code }) => {
    over ||= code === 1012; // the server closed in order
    setLink("off", over ? "run ended" : code === 1013 ? "too many viewers" : "no connection");
    if (hello) veilAll(over ? "The run has ended." : "No connection to the run; trying again.");
    setTimeout(reconnect, retryMs);
    retryMs = Math.min(retryMs * 1.7, 8000);
  };
}

async function reconnect() {
  try {
    const answer = await fetch("/healthz", { cache: "no-store" });
    if (answer.status === 401) return location.reload(); // a new run with a new token: its page says so
  } catch {
    // nobody there yet: the socket will say so too
  }
  connect();
}

function tell(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function watch() {
  if (!hello) return;
  const all = hello.sources.map((_, i) => i);
  const awake = !document.hidden;
  tell({ watch: awake ? (selected === null ? all : [selected]) : [], detail: selected, awake });
}

function setLink(kind, text) {
  $("link").className = kind;
  $("link").textContent = text;
}

function take(message) {
  if (message.type === "hello") {
    hello = message;
    now = minutes = null;
    over = false;
    retryMs = 500;
    setLink("on", "connected");
    build();
  } else if (message.type === "now") {
    now = message;
    showNow();
  } else if (message.type === "minutes") {
    minutes = message;
    showMinutes();
  } else if (message.type === "end") {
    over = true;
  }
}

// ---------------------------------------------------------------- the frame of the page

function build() {
  const several = hello.sources.length > 1;
  const tabs = several ? [["All", null], ...hello.sources.map((s, i) => [s.name, i])] : [];
  $("tabs").replaceChildren(
    ...tabs.map(([name, number]) => {
      const tab = make("button", "", several && number !== null ? make("i", "dot") : null, name);
      tab.setAttribute("role", "tab");
      tab.dataset.number = number ?? "";
      tab.onclick = () => choose(number);
      return tab;
    }),
  );
  $("grid").replaceChildren(
    ...hello.sources.map((source, i) => {
      const screen = make("div", "screen", blank(make("canvas"), source), make("p", "veil"));
      screen.lastChild.hidden = true;
      const card = make("button", "card", make("div", "caption", make("h2", "", source.name), make("span", "badge")),
        screen, make("div", "facts"));
      card.onclick = () => choose(i);
      return card;
    }),
  );
  const wanted = decodeURIComponent(location.hash.slice(1));
  const found = hello.sources.findIndex((s) => s.name === wanted);
  choose(found >= 0 ? found : several ? null : 0);
}

function choose(number) {
  selected = number;
  minutes = null;
  const source = hello.sources[number];
  history.replaceState(null, "", source && hello.sources.length > 1 ? `#${encodeURIComponent(source.name)}` : location.pathname);
  for (const tab of $("tabs").children) {
    tab.setAttribute("aria-selected", String(tab.dataset.number === String(number ?? "")));
  }
  $("all").hidden = number !== null;
  $("detail").hidden = number === null;
  $(number === null ? "all" : "left").append($("events-card"));
  if (source) {
    $("name").textContent = source.name;
    $("location").textContent = source.location;
    $("location").title = source.location;
    const word = source.live ? "Age" : "Latency";
    $("delay-name").textContent = word;
    $("delay-chart-name").textContent = source.live ? "Age, ms (greatest of each second)" : "Latency, ms (median of each second)";
    for (const id of ["objects", "stages"]) $(id).replaceChildren();
    blank($("frame"), source);
    drawCharts();
  }
  document.title = `${source ? source.name : "all cameras"} · perception`;
  if (now) showNow();
  watch();
}

function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null));
  return element;
}

function blank(canvas, source) {
  const [height, width] = source.size_hw ?? [9, 16];
  const scale = 1280 / Math.max(height, width);
  canvas.width = width * scale; // setting it also clears
  canvas.height = height * scale;
  return canvas;
}

// ---------------------------------------------------------------- frames

async function showFrame(data) {
  const number = new DataView(data).getUint16(0);
  const bitmap = await createImageBitmap(new Blob([new Uint8Array(data, 2)], { type: "image/jpeg" }));
  const canvas = selected === null ? $("grid").children[number]?.querySelector("canvas") : number === selected ? $("frame") : null;
  if (canvas) {
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
  }
  bitmap.close();
}

function veil(screen, text, calm = false) {
  const words = screen.querySelector(".veil");
  words.hidden = !text;
  words.classList.toggle("calm", calm);
  if (words.textContent !== text) words.textContent = text;
  screen.classList.toggle("stale", Boolean(text));
}

function veilAll(text) {
  veil($("screen"), text);
  for (const card of $("grid").children) veil(card.querySelector(".screen"), text);
}

function absence(line) {
  if (line.state === "ended") return `ended ${line.ended}`;
  if (line.state === "waiting") return "waiting for the first frame";
  if (!AWAY.has(line.state)) return "";
  const since = line.silent_s === null ? "no frame yet" : `last frame ${ago(line.silent_s)} ago`;
  const why = line.trouble.find(([kind]) => kind === line.state)?.[1];
  return [since, why].filter(Boolean).join(" · ");
}

// ---------------------------------------------------------------- numbers

function showNow() {
  $("run").textContent = [hello.model, hello.provider.replace("ExecutionProvider", ""), `running ${clock(now.run_s)}`]
    .filter(Boolean).join(" · ");
  now.sources.forEach((line, i) => {
    const tab = $("tabs").children[i + 1];
    if (tab) tab.className = line.state;
    showCard($("grid").children[i], line, hello.sources[i]);
  });
  if (selected !== null) showDetail(now.sources[selected], hello.sources[selected]);
}

function showCard(card, line, source) {
  setBadge(card.querySelector(".badge"), line);
  veil(card.querySelector(".screen"), absence(line), line.state === "ended");
  const facts = [
    [number(line.rate_hz, 1), "/s"],
    [number(source.live ? line.age_ms : line.latency_ms, 0), source.live ? "ms old" : "ms"],
    [line.dropped, "dropped"],
    [line.count, line.count === 1 ? "object" : "objects"],
  ];
  card.querySelector(".facts").replaceChildren(
    ...facts.map(([value, unit]) => make("span", "", make("b", "", String(value)), ` ${unit}`)),
  );
}

function setBadge(badge, line) {
  const wrong = line.trouble.map(([kind]) => kind);
  const first = AWAY.has(line.state) ? [line.state] : [];
  const words = [...new Set([...first, ...wrong])].map((kind) => KINDS[kind] ?? kind).join(", ") || line.state;
  badge.className = `badge ${line.state}`;
  badge.replaceChildren(make("i", "dot"), words);
  badge.title = line.trouble.map(([kind, detail]) => `${kind}: ${detail}`).join("\n");
}

function showDetail(line, source) {
  setBadge($("state"), line);
  veil($("screen"), absence(line), line.state === "ended");
  $("rate").textContent = number(line.rate_hz, 1);
  $("frames").textContent = `${line.frames.toLocaleString("en")} frames`;
  $("delay").textContent = number(source.live ? line.age_ms : line.latency_ms, 0);
  $("dropped").textContent = line.dropped.toLocaleString("en");
  $("dropped").className = line.dropped ? "warned" : "";
  const share = line.dropped / Math.max(1, line.dropped + line.frames);
  $("dropped-more").textContent = line.dropped ? `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} % of all` : "none";
  $("count").textContent = line.count;
  const objects = now.objects ?? [];
  const nearest = objects.find((o) => o.distance_m !== null);
  $("count-more").textContent = nearest ? `nearest ${metres(nearest.distance_m)}` : objects.length ? "not calibrated" : "";
  showObjects(objects);
  showPlan();
}

function showPlan() {
  const view = now?.view ?? null;
  const shown = view !== null;
  $("plan").hidden = $("plan-note").hidden = !shown;
  $("no-plan").hidden = shown;
  const state = now?.sources[selected]?.state;
  $("no-plan").textContent = AWAY.has(state) || state === "waiting" ? "no frame" : "not calibrated";
  if (shown) drawPlan($("plan"), now.objects ?? [], view);
}

function showObjects(objects) {
  const body = $("objects");
  $("no-objects").hidden = objects.length > 0;
  const state = now.sources[selected].state;
  $("no-objects").textContent = state === "ended" ? "ended" : GONE.has(state) ? "no frame" : "nothing tracked";
  objects.forEach((object, i) => {
    const row = body.children[i] ?? body.appendChild(objectRow());
    const urgent = object.ttc_s !== null && object.ttc_s < hello.urgent_s;
    row.className = `${object.seen ? "" : "unseen"} ${urgent ? "urgent" : ""}`;
    const [what, distance, speed, ttc] = row.children;
    what.children[0].style.background = object.colour;
    what.children[1].textContent = object.class;
    what.children[2].textContent = object.id;
    distance.textContent = object.distance_m === null ? "–" : metres(object.distance_m);
    speed.textContent = object.speed_mps === null ? "–" : `${signed(object.speed_mps)} m/s`;
    ttc.textContent = object.ttc_s === null ? "–" : object.ttc_s < 100 ? `${object.ttc_s.toFixed(1)} s` : "> 99 s";
  });
  while (body.children.length > objects.length) body.lastChild.remove();
}

function objectRow() {
  const what = make("td", "", make("i", "chip"), make("span"), make("span", "id"));
  return make("tr", "", what, make("td", "number"), make("td", "number"), make("td", "number"));
}

function number(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}
function metres(value) {
  return `${value.toFixed(value < 10 ? 1 : 0)}\u00a0m`;
}
function signed(value) {
  return Math.abs(value) < 0.05 ? "0.0" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
}
function ago(seconds) {
  return seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
function clock(seconds) {
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  return `${hours ? `${hours}:` : ""}${two((seconds / 60) % 60)}:${two(seconds % 60)}`;
}

// ---------------------------------------------------------------- charts, stages, events

function showMinutes() {
  showEvents(minutes.events);
  if (selected === null || !minutes.stages) return;
  const source = hello.sources[selected];
  const whole = minutes.stages.find(([stage]) => stage === (source.live ? "age" : "latency"));
  $("delay-more").textContent = whole ? `p95\u00a0${Math.round(whole[2])} · p99\u00a0${Math.round(whole[3])}` : "";
  const stages = minutes.stages.filter(([stage]) => stage !== "age" && stage !== "latency");
  const longest = Math.max(...stages.map((row) => row[2]), 1e-9);
  $("stages").replaceChildren(...stages.map((row) => stageRow(row, longest)));
  drawCharts();
}

function stageRow([stage, p50, p95, p99], longest) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [value, colour] of [[p95, "#2a4a63"], [p50, "#6cb6ff"]]) {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    bar.setAttribute("width", `${(100 * value) / longest}%`);
    bar.setAttribute("height", "8");
    bar.setAttribute("rx", "2");
    bar.setAttribute("fill", colour);
    svg.append(bar);
  }
  const cells = [p50, p95, p99].map((value) => make("td", "number", value.toFixed(2)));
  return make("tr", "", make("td", "", stage), make("td", "bar", svg), ...cells);
}

function showEvents(events) {
  $("no-events").hidden = events.length > 0;
  $("events").replaceChildren(
    ...events.map((event) => {
      const at = new Date(Date.now() - 1000 * event.ago_s).toLocaleTimeString("en-GB");
      const kind = (KINDS[event.kind] ?? event.kind) + (event.active ? "" : " ended");
      const row = make("li", QUIET.has(event.kind) ? "" : event.active ? "begins" : "over", make("time", "", at), make("span", "where", event.source),
        make("span", "kind", kind), make("span", "detail", event.active ? event.detail : ""));
      row.title = event.detail;
      return row;
    }),
  );
}

function drawCharts() {
  const past = minutes?.history ?? {};
  const live = selected !== null && hello.sources[selected].live;
  drawLine("delay", (live ? past.age_ms : past.latency_ms) ?? [], "#6cb6ff", (v) => `${Math.round(v)} ms`, 10);
  drawLine("rate", past.frames ?? [], "#57c785", (v) => `${v} /s`, 5);
  drawLine("dropped", past.dropped ?? [], "#e7b454", (v) => `${v} /s`, 2, true);
  drawHealth(minutes?.spans ?? []);
}

function prepare(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "10px system-ui, sans-serif";
  pen.lineWidth = 1;
  pen.strokeStyle = "#1f2832";
  pen.fillStyle = "#6b7886";
  const span = hello.history_s;
  for (let at = 0; at <= span; at += 60) {
    const x = Math.round((width * (span - at)) / span) + (at ? 0.5 : -0.5);
    line(pen, x, 0, x, height - 13);
    pen.textAlign = at === span ? "left" : at ? "center" : "right";
    pen.fillText(at ? `−${at / 60} min` : "now", x, height - 2);
  }
  return [pen, width, height - 14];
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

function drawLine(name, values, colour, words, least, bars = false) {
  const [pen, width, height] = prepare($(`${name}-chart`));
  const span = hello.history_s;
  const top = roundUp(Math.max(least, ...values.filter((v) => v !== null)));
  const x = (i) => (width * (span - values.length + i + 0.5)) / span;
  const y = (v) => height - (height - 4) * (v / top);
  pen.textAlign = "left";
  pen.fillText(String(top), 2, 10);
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  if (bars) {
    values.forEach((v, i) => v && pen.fillRect(x(i) - 1, y(v), Math.max(2, width / span), height - y(v)));
  } else {
    pen.beginPath();
    let down = false;
    values.forEach((v, i) => {
      if (v === null) down = false;
      else if (down) pen.lineTo(x(i), y(v));
      else {
        pen.moveTo(x(i), y(v));
        pen.lineTo(x(i) + 0.5, y(v)); // a lone second shows as a dot
        down = true;
      }
    });
    pen.stroke();
  }
  let read = values.at(-1);
  if (pointer !== null) {
    const i = Math.floor(pointer * span) - (span - values.length);
    read = values[i];
    pen.strokeStyle = "#4b5866";
    line(pen, pointer * width, 0, pointer * width, height);
  }
  $(`${name}-read`).textContent = read === null || read === undefined ? "–" : words(read) + when();
}

function drawHealth(spans) {
  const [pen, width, height] = prepare($("health-chart"));
  const span = hello.history_s;
  const x = (secondsAgo) => width * (1 - Math.min(span, secondsAgo) / span);
  const rows = [...new Set(spans.map(([kind]) => kind))].slice(-4);
  pen.textAlign = "left";
  for (const [kind, begin, end] of spans) {
    const row = rows.indexOf(kind);
    if (row < 0) continue;
    const momentary = begin === end;
    const left = x(begin);
    pen.fillStyle = momentary ? "#e7b454" : "#b5504a";
    pen.fillRect(left, row * 15 + 2, momentary ? 3 : Math.max(3, x(end ?? 0) - left), 12);
  }
  pen.fillStyle = "#dbe2ea";
  rows.forEach((kind, row) => pen.fillText(KINDS[kind] ?? kind, 4, row * 15 + 11.5));
  const at = pointer === null ? 0 : span * (1 - pointer);
  const wrong = spans.filter(([, begin, end]) => begin >= at && at >= (end ?? 0)).map(([kind]) => KINDS[kind] ?? kind);
  if (pointer !== null) {
    pen.strokeStyle = "#4b5866";
    line(pen, pointer * width, 0, pointer * width, height);
  }
  $("health-read").textContent = ([...new Set(wrong)].join(", ") || "good") + when();
}

function when() {
  return pointer === null ? "" : `, ${ago(hello.history_s * (1 - pointer))} ago`;
}

function roundUp(value) {
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((n) => n * step).find((n) => n >= value);
}

// ---------------------------------------------------------------- what the visitor does

for (const canvas of document.querySelectorAll(".chart canvas")) {
  canvas.onpointermove = (event) => {
    pointer = Math.min(1, Math.max(0, event.offsetX / canvas.clientWidth));
    drawCharts();
  };
  canvas.onpointerleave = () => {
    pointer = null;
    drawCharts();
  };
}
$("screen").onclick = (event) => {
  const screen = event.currentTarget;
  const share = (event.clientX - screen.getBoundingClientRect().left + screen.scrollLeft) / screen.scrollWidth;
  screen.classList.toggle("near");
  screen.scrollLeft = share * screen.scrollWidth - screen.clientWidth / 2; // what was touched comes to the middle
};
document.onvisibilitychange = watch;
window.onpagehide = () => socket.close(); // a page kept for the back button is no viewer
window.onresize = () => {
  if (!hello || selected === null) return;
  drawCharts();
  showPlan();
};
connect();
