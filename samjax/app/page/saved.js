// The saved masks on a canvas of their own, which is copied to the screen: a pointer that moves over hundreds of objects
// costs one copy a frame.

import { camera } from "./camera.js";
import { draft } from "./draft.js";
import { everything } from "./everything.js";
import { pathOf } from "./masks.js";
import { app, colourOf } from "./state.js";
import { work } from "./work.js";

const QUICK = 12; // milliseconds of drawing that every frame of a moving photo may have
const REST = 120; // milliseconds without movement, after which masks that take longer are drawn anew

/** @type {HTMLCanvasElement} */
let layer;
/** @type {{facts: any[], view: {scale: number, x: number, y: number, density: number}, cost: number}|null} */
let made = null;
let timer = 0;

/** Whether an object is drawn at all. */
const isSeen = (object) => !object.deleted && !object.hidden && object.id !== draft.target;

/** What the layer was made from, apart from the view. */
const facts = () => [work.objects, app.classes, app.selected, app.hideAll, draft.target, draft.active, everything.on];

/** How opaque a saved mask is that is not marked. */
const opacity = () => (everything.on ? 0.5 : draft.active ? 0.18 : 0.32);

/**
 * Draws the saved masks; those that the pointer or the list is at stand out.
 * @param {CanvasRenderingContext2D} context @param {number} density @param {() => void} again draws the overlay anew
 * @returns {import("./state.js").SegmentedObject[]} the marked ones
 */
export function drawSaved(context, density, again) {
  if (app.hideAll) return [];
  const view = { scale: camera.scale, x: camera.x, y: camera.y, density };
  const now = facts();
  const { width, height } = context.canvas;
  const isSame = made && now.every((fact, index) => fact === made.facts[index]) && layer.width === width && layer.height === height;
  const isMoved = isSame && Object.keys(view).some((name) => view[name] !== made.view[name]);
  if (!isSame || (isMoved && made.cost < QUICK)) make(now, view, width, height);
  else if (isMoved) {
    clearTimeout(timer);
    timer = setTimeout(() => (made = null, again()), REST);
  }
  // While the photo moves, a layer that is slow to draw moves with it.
  const share = (view.scale * density) / (made.view.scale * made.view.density);
  const pixels = view.scale * density;
  context.setTransform(share, 0, 0, share, (made.view.x - view.x) * pixels, (made.view.y - view.y) * pixels);
  context.drawImage(layer, 0, 0);
  inPhoto(context, view);
  const marked = work.objects.filter((object) => isSeen(object) && (object.id === app.selected || object.id === app.hovered));
  for (const object of marked) {
    // The hovered one is in the layer already: both together are as opaque as the selected one.
    const alpha = object.id === app.selected ? 0.5 : Math.max(0, 1 - 0.5 / (1 - opacity()));
    drawMask(context, object.polygons, colourOf(object), alpha, 2.6);
  }
  return marked;
}

function make(now, view, width, height) {
  clearTimeout(timer);
  layer ??= document.createElement("canvas");
  if (layer.width !== width || layer.height !== height) [layer.width, layer.height] = [width, height];
  const start = performance.now();
  const context = layer.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineJoin = context.lineCap = "round";
  inPhoto(context, view);
  for (const object of work.objects) {
    if (!isSeen(object) || object.id === app.selected || !isInView(object.box)) continue;
    drawMask(context, object.polygons, colourOf(object), opacity(), everything.on ? 2.6 : 1.5);
  }
  made = { facts: now, view, cost: performance.now() - start };
}

function inPhoto(context, { scale, x, y, density }) {
  const pixels = scale * density;
  context.setTransform(pixels, 0, 0, pixels, -x * pixels, -y * pixels);
}

/** Whether a box of the photo is, in part, on the screen. */
export function isInView([x0, y0, x1, y1]) {
  const border = 4 / camera.scale; // of the outline
  return x1 + border >= camera.x && y1 + border >= camera.y && x0 - border <= camera.x + camera.width / camera.scale
    && y0 - border <= camera.y + camera.height / camera.scale;
}

/** A mask with its outline; a dark line below the coloured one keeps it crisp on any photo. */
export function drawMask(context, polygons, colour, alpha, width, dashes = []) {
  const path = pathOf(polygons);
  context.globalAlpha = alpha;
  context.fillStyle = colour;
  context.fill(path, "evenodd");
  context.globalAlpha = 1;
  context.setLineDash(dashes.map((length) => length / camera.scale));
  context.strokeStyle = "rgb(0 0 0 / .55)";
  context.lineWidth = (width + 1.4) / camera.scale;
  context.stroke(path);
  context.strokeStyle = colour;
  context.lineWidth = width / camera.scale;
  context.stroke(path);
  context.setLineDash([]);
}
