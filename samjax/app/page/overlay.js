// What is drawn on the photo: masks as translucent areas with a crisp outline, prompts, the shape that is being drawn,
// and the crosshair of the keyboard.

import { camera, toScreen } from "./camera.js";
import { draft, shownAnswer } from "./draft.js";
import { everything } from "./everything.js";
import { pathOf } from "./masks.js";
import { hover } from "./preview.js";
import { drawMask, drawSaved, isInView } from "./saved.js";
import { app, colourOf, nameOf, PALETTE } from "./state.js";
import { shape } from "./tools.js";
import { work } from "./work.js";

export const DRAFT = "#3b9cff";
const [GREEN, RED] = ["#16a34a", "#dc2626"];

/** @param {CanvasRenderingContext2D} context @param {number} density @param {() => void} again draws the overlay anew */
export function drawOverlay(context, density, again) {
  const scale = camera.scale * density;
  const inPhoto = () => context.setTransform(scale, 0, 0, scale, -camera.x * scale, -camera.y * scale);
  const onScreen = () => context.setTransform(density, 0, 0, density, 0, 0);
  context.lineJoin = context.lineCap = "round";

  const marked = drawSaved(context, density, again);
  inPhoto();
  if (everything.on) drawFound(context);
  // A correction begins with the mask as it is.
  const answer = shownAnswer() ?? (draft.target && work.objects.find((object) => object.id === draft.target));
  if (!draft.active && hover.answer) {
    drawMask(context, hover.answer.polygons, DRAFT, 0.16, 1.5, [5, 4]);
  }
  if (answer) drawMask(context, answer.polygons, draftColour(), 0.42, 2.4);

  onScreen();
  context.setLineDash([]);
  for (const object of marked) drawLabel(context, object, nameOf(object), colourOf(object));
  drawPrompts(context);
  drawShape(context);
  if (app.cursor) drawCrosshair(context, toScreen(app.cursor[0] + 0.5, app.cursor[1] + 0.5));
}

export function draftColour() {
  return app.classes.find((known) => known.name === draft.class)?.colour ?? DRAFT;
}

/** What is found is lighter than what is kept; what the pointer is at stands out. */
function drawFound(context) {
  for (const mask of everything.masks) {
    if (mask.taken || mask === everything.hovered || !isInView(mask.box)) continue;
    const path = pathOf(mask.polygons);
    context.globalAlpha = 0.2;
    context.fillStyle = PALETTE[mask.index % PALETTE.length];
    context.fill(path, "evenodd");
    context.globalAlpha = 0.75;
    context.lineWidth = 1 / camera.scale;
    context.strokeStyle = "#fff";
    context.stroke(path);
    context.globalAlpha = 1;
  }
  if (everything.hovered) {
    drawMask(context, everything.hovered.polygons, PALETTE[everything.hovered.index % PALETTE.length], 0.6, 2.8);
  }
}

function drawLabel(context, object, text, colour) {
  const [x, y] = toScreen(object.box[0], object.box[1]);
  context.font = "600 12px system-ui, sans-serif";
  const shown = text.length > 40 ? `${text.slice(0, 39)}…` : text;
  const width = context.measureText(shown).width + 22;
  const left = Math.min(Math.max(4, x), camera.width - width - 4);
  const top = Math.min(Math.max(4, y - 26), camera.height - 24);
  context.fillStyle = "rgb(16 22 28 / .88)";
  context.beginPath();
  context.roundRect(left, top, width, 20, 4);
  context.fill();
  context.fillStyle = colour;
  context.fillRect(left + 6, top + 6, 8, 8);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(shown, left + 18, top + 10.5);
}

function drawPrompts(context) {
  const step = draft.steps.at(-1);
  const points = [...(step?.points ?? []), ...draft.waiting];
  if (step?.box) drawBox(context, step.box.map((value) => value + 0.5), []);
  for (const [x, y, label] of points) {
    const [sx, sy] = toScreen(x + 0.5, y + 0.5);
    context.beginPath();
    context.arc(sx, sy, 6.5, 0, 7);
    context.fillStyle = label ? GREEN : RED;
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = "#fff";
    context.stroke();
    context.beginPath(); // a sign beside the colour, for those who do not tell red from green
    context.moveTo(sx - 3, sy);
    context.lineTo(sx + 3, sy);
    if (label) {
      context.moveTo(sx, sy - 3);
      context.lineTo(sx, sy + 3);
    }
    context.stroke();
  }
}

function drawBox(context, [x0, y0, x1, y1], dashes) {
  const [left, top] = toScreen(x0, y0);
  const [right, bottom] = toScreen(x1, y1);
  outlined(context, () => context.rect(left, top, right - left, bottom - top), dashes);
}

function outlined(context, trace, dashes = []) {
  context.beginPath();
  trace();
  context.setLineDash(dashes);
  context.lineWidth = 3.5;
  context.strokeStyle = "rgb(0 0 0 / .6)";
  context.stroke();
  context.lineWidth = 1.6;
  context.strokeStyle = "#fff";
  context.stroke();
  context.setLineDash([]);
}

function drawShape(context) {
  const current = shape.current;
  const line = (points) => points.forEach(([x, y], index) => {
    const [sx, sy] = toScreen(x, y);
    if (index) context.lineTo(sx, sy);
    else context.moveTo(sx, sy);
  });
  if (current?.kind === "box") drawBox(context, [...current.from, ...current.to].map((value) => value + 0.5), [6, 4]);
  if (current?.kind === "lasso") {
    outlined(context, () => line([...current.line, ...(current.end ? [current.end] : [])]), current.free ? [] : [6, 4]);
  }
  if (current?.kind === "stroke") {
    context.globalAlpha = 0.55;
    context.lineWidth = Math.max(1, current.radius * 2 * camera.scale);
    context.strokeStyle = current.erase ? RED : draftColour();
    context.beginPath();
    line(current.points.length > 1 ? current.points : [...current.points, ...current.points]);
    context.stroke();
    context.globalAlpha = 1;
  }
  if (app.tool === "brush" && shape.pointer) {
    const [x, y] = toScreen(shape.pointer[0] + 0.5, shape.pointer[1] + 0.5);
    outlined(context, () => context.arc(x, y, Math.max(1.5, app.brush.radius * camera.scale), 0, 7),
      app.brush.erase ? [4, 3] : []);
  }
}

function drawCrosshair(context, [x, y]) {
  const lines = () => {
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + dx * 5, y + dy * 5);
      context.lineTo(x + dx * 22, y + dy * 22);
    }
  };
  outlined(context, lines);
  outlined(context, () => context.arc(x, y, 10, 0, 7));
}
