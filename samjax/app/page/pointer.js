// Mouse, pen and fingers on the photo: clicks and drags go to the tool; two fingers, the wheel, the middle button and
// the space bar move the photo.

import { camera, onSurface, panBy, toPhoto, zoomBy } from "./camera.js";
import { byId } from "./dom.js";
import { correctSelected } from "./actions.js";
import { app, emit } from "./state.js";
import { abandonShape, labelOf, objectAt, select, shape, tool } from "./tools.js";

const SLACK = { mouse: 4, pen: 5, touch: 9 }; // pixels that a click may move

/** @type {Map<number, [number, number]>} where the pointers are that are down */
const down = new Map();
/** @type {{kind: "tap"|"draw"|"pan"|"pinch", start: [number, number], button: number, shift: boolean}|null} */
let gesture = null;
const space = { held: false, used: false };

/** The pixel at a place of the screen, with fractions; whole numbers are pixels' centres. */
const pixelAt = (x, y) => toPhoto(x, y).map((value) => value - 0.5);

/** The space bar moves the photo while it is down. Returns whether it did so, when it comes up. */
export function holdSpace(held) {
  const { used } = space;
  if (held !== space.held) Object.assign(space, { held, used: false });
  byId("surface").classList.toggle("grab", held);
  return used;
}

export function startPointer() {
  const surface = byId("surface");
  surface.addEventListener("pointerdown", begin);
  surface.addEventListener("pointermove", move);
  surface.addEventListener("pointerup", end);
  surface.addEventListener("pointercancel", cancel);
  surface.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && leave());
  surface.addEventListener("contextmenu", (event) => event.preventDefault());
  surface.addEventListener("wheel", wheel, { passive: false });
  surface.addEventListener("dblclick", (event) => {
    if (app.tool === "select" && app.photo && objectAt(pixelAt(...onSurface(event)))) correctSelected();
    if (app.tool === "lasso") tool().close?.();
  });
}

function begin(event) {
  if (!app.photo) return;
  byId("surface").focus({ preventScroll: true, focusVisible: false });
  event.preventDefault();
  byId("surface").setPointerCapture(event.pointerId);
  const at = onSurface(event);
  down.set(event.pointerId, at);
  hideCrosshair();
  if (down.size === 2) {
    if (gesture?.kind === "draw") abandonShape();
    gesture = { kind: "pinch", start: at, button: 0, shift: false };
    return;
  }
  if (down.size > 2) return;
  const moves = event.button === 1 || space.held || app.tool === "pan";
  if (moves && space.held) space.used = true;
  gesture = { kind: moves ? "pan" : "tap", start: at, button: event.button, shift: event.shiftKey || event.altKey || event.ctrlKey };
}

function move(event) {
  if (!app.photo) return;
  const at = onSurface(event);
  const before = down.get(event.pointerId);
  shape.pointer = event.pointerType === "touch" && !before ? null : pixelAt(...at);
  if (!before) {
    hideCrosshair();
    tool().hover(shape.pointer);
    emit("pointer shape");
    return;
  }
  if (gesture?.kind === "pinch") return pinch(event.pointerId, at);
  if (gesture?.kind === "tap" && Math.hypot(at[0] - gesture.start[0], at[1] - gesture.start[1]) > SLACK[event.pointerType]) {
    if (tool().drags && gesture.button === 0) {
      gesture.kind = "draw";
      tool().begin(pixelAt(...gesture.start));
    } else gesture.kind = "pan";
  }
  if (gesture?.kind === "draw") {
    for (const part of event.getCoalescedEvents?.() ?? [event]) tool().move(pixelAt(...onSurface(part)));
  }
  if (gesture?.kind === "pan") panBy(at[0] - before[0], at[1] - before[1]);
  down.set(event.pointerId, at);
  emit("pointer shape");
}

function pinch(id, at) {
  const points = [...down.entries()].slice(0, 2);
  if (!points.some(([other]) => other === id) || points.length < 2) return;
  const measure = ([one, other]) => ({
    x: (one[0] + other[0]) / 2, y: (one[1] + other[1]) / 2, apart: Math.hypot(one[0] - other[0], one[1] - other[1]),
  });
  const before = measure(points.map(([, place]) => place));
  down.set(id, at);
  const after = measure(points.map(([other]) => down.get(other)));
  panBy(after.x - before.x, after.y - before.y);
  if (before.apart > 10) zoomBy(after.apart / before.apart, after.x, after.y);
}

function end(event) {
  if (!down.delete(event.pointerId)) return;
  const at = onSurface(event);
  if (gesture?.kind === "tap" && app.photo) {
    const pixel = pixelAt(...at);
    const other = gesture.button === 2 || gesture.shift;
    if (gesture.button === 2 && app.tool === "select") select(objectAt(pixel)?.id ?? null);
    else tool().tap(pixel, labelOf(other));
    if (event.pointerType === "touch") shape.pointer = null;
  } else if (gesture?.kind === "draw") {
    tool().end(pixelAt(...at));
    if (event.pointerType === "touch") shape.pointer = null;
  }
  if (!down.size) gesture = null;
  emit("shape");
}

function cancel(event) {
  down.delete(event.pointerId);
  if (gesture?.kind === "draw") abandonShape();
  if (!down.size) gesture = null;
}

function leave() {
  shape.pointer = null;
  if (!down.size && !app.cursor) tool().hover(null);
  emit("pointer shape");
}

function wheel(event) {
  if (!app.photo) return;
  event.preventDefault();
  const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? camera.height : 1;
  // A pinch on a touch pad comes as a wheel with Ctrl, in small steps.
  const speed = event.ctrlKey ? 0.01 : 0.0016;
  if (event.shiftKey) panBy(-(event.deltaX || event.deltaY) * unit, 0);
  else zoomBy(Math.exp(-event.deltaY * unit * speed), ...onSurface(event));
}

function hideCrosshair() {
  if (!app.cursor) return;
  app.cursor = null;
  emit("cursor");
}
