"""A page to click lane lines in, or zones and lines for events.

It is one HTML file with the image inside, which needs no window system and no network. `perception calibrate
--frame road.png --page` writes it; it opens in any browser, also on another machine, and shows the command to type or
the text for the events' file.
"""

from __future__ import annotations

import base64
import html
import json

import cv2

from perception.arrays import U8

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Where does the camera look?</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
 body { font: 16px/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 1400px; padding: 0 1rem; }
 #stage { position: relative; cursor: crosshair; } #stage img, #stage svg { width: 100%; display: block; }
 #stage svg { position: absolute; inset: 0; height: 100%; }
 pre { background: #8882; padding: .8rem; white-space: pre-wrap; word-break: break-all; user-select: all; }
 button { font: inherit; padding: .2rem 1rem; }
</style></head><body>
<h1>Where does the camera look?</h1>
<p>Draw <label><input type="radio" name="mode" value="lanes" checked> lane lines</label>
<label><input type="radio" name="mode" value="zone"> a zone</label>
<label><input type="radio" name="mode" value="line"> a line</label>
(zones and lines are for <code>perception run --events FILE.toml</code>)</p>
<p id="help">Click two points, far apart, on a lane line or kerb that runs straight along the road; then two on
another one. Three lines are better than two.</p>
<div id="stage"><img alt="the road" src="data:image/jpeg;base64,@IMAGE@">
<svg viewBox="0 0 @WIDTH@ @HEIGHT@"></svg></div>
<p><button id="undo">Take the last point back</button> <span id="found" aria-live="polite"></span></p>
<p>Then type, or put into the file:</p><pre id="command"></pre>
<script>
"use strict";
const width = @WIDTH@, height = @HEIGHT@, command = @COMMAND@, points = [];
const mode = () => document.querySelector("[name=mode]:checked").value;
const stage = document.getElementById("stage"), svg = stage.querySelector("svg");
function meeting(lines) {  // least squares, weighed alike, as perception.cameras.calibration.meeting_point
  let a = 0, b = 0, d = 0, p = 0, q = 0;
  for (const [[x1, y1], [x2, y2]] of lines) {
    const length = Math.hypot(x2 - x1, y2 - y1), u = (y1 - y2) / length, v = (x2 - x1) / length, c = u * x1 + v * y1;
    a += u * u; b += u * v; d += v * v; p += u * c; q += v * c;
  }
  const det = a * d - b * b;
  return Math.abs(det) > 1e-6 ? [(d * p - b * q) / det, (a * q - b * p) / det] : null;
}
function shape(name, values) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
  svg.append(node);
}
function draw() {
  svg.replaceChildren();
  const size = width / 300;
  document.getElementById("help").hidden = mode() !== "lanes";
  if (mode() !== "lanes") return drawPlace(size);
  const lines = [];
  for (let i = 0; i + 1 < points.length; i += 2) lines.push([points[i], points[i + 1]]);
  for (const [x, y] of points) shape("circle", {cx: x, cy: y, r: size, fill: "#ffdc28", stroke: "#222"});
  for (const [[x1, y1], [x2, y2]] of lines) {
    const dx = 20 * (x2 - x1), dy = 20 * (y2 - y1);
    shape("line", {x1: x1 - dx, y1: y1 - dy, x2: x2 + dx, y2: y2 + dy, stroke: "#ffdc28", "stroke-width": size / 3});
  }
  const point = lines.length > 1 ? meeting(lines) : null;
  if (point) shape("line", {x1: 0, x2: width, y1: point[1], y2: point[1], stroke: "#28dcff",
    "stroke-width": size / 2, "stroke-dasharray": 4 * size});
  document.getElementById("found").textContent = point
    ? `They meet at (${point[0].toFixed(0)}, ${point[1].toFixed(0)}). Does the blue line lie on the horizon?`
    : `${lines.length} of at least 2 lines`;
  const options = lines.map(l => ` --lane-line ${l.flat().map(n => n.toFixed(1)).join(",")}`).join("");
  document.getElementById("command").textContent = command + (options || " --lane-line X1,Y1,X2,Y2");
}
function drawPlace(size) {  // a zone or line in the words of the events' file
  const shown = mode() === "line" ? points.slice(-2) : points;
  for (const [x, y] of shown) shape("circle", {cx: x, cy: y, r: size, fill: "#ffdc28", stroke: "#222"});
  const fill = mode() === "zone" ? "#ffdc2840" : "none";
  const corners = shown.map(p => p.join(",")).join(" ");
  shape("polygon", {points: corners, fill, stroke: "#ffdc28", "stroke-width": size / 3});
  const least = mode() === "zone" ? 3 : 2;
  document.getElementById("found").textContent = `${shown.length} of ${mode() === "zone" ? "at least 3" : 2} points`;
  const text = shown.map(p => `[${p.map(n => n.toFixed(1)).join(", ")}]`).join(", ");
  document.getElementById("command").textContent =
    shown.length < least ? "…" : `[[${mode()}]]\nname = "${mode()}"\npoints_px = [${text}]`;
}
for (const button of document.querySelectorAll("[name=mode]"))
  button.addEventListener("change", () => { points.length = 0; draw(); });
stage.addEventListener("click", event => {
  const box = stage.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * width, y = (event.clientY - box.top) / box.height * height;
  const last = points.length % 2 ? points[points.length - 1] : null;
  if (!last || Math.hypot(x - last[0], y - last[1]) > 2) points.push([x, y]);
  draw();
});
document.getElementById("undo").addEventListener("click", () => { points.pop(); draw(); });
draw();
</script></body></html>
"""


def click_page(image_bgr: U8, command: str) -> str:
    """The page for one image.

    Args:
        image_bgr: (H, W, 3), put into the page as JPEG.
        command: the start of what the user will type; the lines that were clicked are added to it.
    """
    encoded = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    height, width = image_bgr.shape[:2]
    page = _PAGE.replace("@WIDTH@", str(width)).replace("@HEIGHT@", str(height))
    # in a script, only a closing tag could end the string
    page = page.replace("@COMMAND@", json.dumps(command).replace("<", "\\u003c"))
    return page.replace("@IMAGE@", html.escape(base64.b64encode(encoded.tobytes()).decode()))
