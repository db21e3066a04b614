"use strict";
// The plan view: the road from above, the camera at the bottom, in metres relative to it.

const PLAN_RANGES_M = [20, 40, 60, 80, 120, 160];
const PLAN_UNDECIDED_RAD = 1; // from here on no side is shown as the front
let planRangeM = 40;

// Draw objects with a known position; view is [left, right] edge of the image in radians, right of straight ahead.
function drawPlan(canvas, objects, view) {
  const placed = objects.filter((object) => object.position_m);
  choosePlanRange(placed);
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const plan = { pen, width, height, x: width / 2, y: height - 12, perM: (height - 24) / planRangeM };
  drawPlanGround(plan, view);
  for (const object of [...placed].reverse()) drawPlanObject(plan, object); // near ones over far ones
  drawPlanRings(plan);
}

// The smallest range that holds all objects; it shrinks only when less than half is in use.
function choosePlanRange(placed) {
  const farthest = Math.max(0, ...placed.map((object) => object.position_m[1])) + 4;
  const wanted = PLAN_RANGES_M.find((range) => range >= farthest) ?? PLAN_RANGES_M.at(-1);
  if (wanted > planRangeM || farthest < 0.45 * planRangeM) planRangeM = wanted;
}

function drawPlanGround({ pen, x, y, perM }, [left, right]) {
  const reach = 2 * planRangeM * perM;
  pen.fillStyle = "#1a222b";
  pen.beginPath();
  pen.moveTo(x, y);
  pen.arc(x, y, reach, left - Math.PI / 2, right - Math.PI / 2);
  pen.fill();
}

function drawPlanRings({ pen, x, y, perM }) {
  pen.font = "10px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.lineWidth = 1;
  for (let ring = planRangeM / 4; ring <= planRangeM; ring += planRangeM / 4) {
    pen.strokeStyle = "rgb(138 151 166 / 28%)";
    pen.beginPath();
    pen.arc(x, y, ring * perM, -Math.PI, 0);
    pen.stroke();
    const words = `${ring} m`;
    const across = Math.min(0.8, (x - 20) / (ring * perM)); // to the left, where there is seldom anything
    const [u, v] = [x - ring * perM * across, y - ring * perM * Math.sqrt(1 - across * across)];
    const span = pen.measureText(words).width + 6;
    pen.fillStyle = "rgb(21 27 34 / 80%)";
    pen.fillRect(u - span / 2, v - 7, span, 14);
    pen.fillStyle = "#8a97a6";
    pen.fillText(words, u, v + 4);
  }
  pen.fillStyle = "#dbe2ea"; // the camera
  pen.beginPath();
  pen.moveTo(x, y - 8);
  pen.lineTo(x + 5, y + 3);
  pen.lineTo(x - 5, y + 3);
  pen.fill();
}

function drawPlanObject({ pen, x, y, perM }, object) {
  const [right, ahead] = object.position_m;
  const [u, v] = [x + right * perM, y - ahead * perM];
  pen.save();
  pen.globalAlpha = object.seen ? 1 : 0.45;
  pen.strokeStyle = pen.fillStyle = object.colour;
  if (object.position_std_m) {
    const [across, along] = object.position_std_m;
    pen.lineWidth = 1;
    pen.globalAlpha *= 0.16;
    pen.beginPath();
    pen.ellipse(u, v, Math.max(2, across * perM), Math.max(2, along * perM), 0, 0, 2 * Math.PI);
    pen.fill();
    pen.globalAlpha /= 0.16;
  }
  if (object.velocity_mps) {
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(u, v);
    pen.lineTo(u + object.velocity_mps[0] * perM, v - object.velocity_mps[1] * perM);
    pen.stroke();
  }
  pen.translate(u, v);
  if (object.size_m && object.heading_rad !== null) {
    pen.rotate(object.heading_rad); // 0 is to the right, and the canvas turns the same way round
    drawPlanFootprint(pen, object, Math.max(4, object.size_m[0] * perM), Math.max(3, object.size_m[1] * perM));
  } else {
    pen.beginPath();
    pen.arc(0, 0, 3.5, 0, 2 * Math.PI);
    pen.fill();
  }
  pen.restore();
}

function drawPlanFootprint(pen, object, length, width) {
  pen.globalAlpha *= 0.45;
  pen.fillRect(-length / 2, -width / 2, length, width);
  pen.globalAlpha /= 0.45;
  pen.lineWidth = 1.5;
  pen.strokeRect(-length / 2, -width / 2, length, width);
  if (object.heading_std_rad >= PLAN_UNDECIDED_RAD) return;
  pen.beginPath(); // a solid nose
  pen.moveTo(length / 2 + Math.max(3, width / 3), 0);
  pen.lineTo(length / 2 - length / 5, width / 2);
  pen.lineTo(length / 2 - length / 5, -width / 2);
  pen.fill();
}
