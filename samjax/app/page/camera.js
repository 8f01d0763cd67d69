// Which part of the photo is seen, and how large. Screen coordinates are CSS pixels from the surface's upper left corner.

import { byId } from "./dom.js";
import { app, emit } from "./state.js";

const MARGIN = 14;
const LARGEST = 48; // screen pixels for a pixel of the photo

export const camera = { scale: 1, x: 0, y: 0, width: 1, height: 1, fitted: true };

/** @param {number} x @param {number} y screen @returns {[number, number]} of the photo; pixel (0, 0) covers 0 to 1 */
export const toPhoto = (x, y) => [x / camera.scale + camera.x, y / camera.scale + camera.y];

/** @param {number} x @param {number} y of the photo @returns {[number, number]} */
export const toScreen = (x, y) => [(x - camera.x) * camera.scale, (y - camera.y) * camera.scale];

/** Where a pointer is on the surface. @param {{clientX: number, clientY: number}} event @returns {[number, number]} */
export function onSurface(event) {
  const { left, top } = byId("surface").getBoundingClientRect();
  return [event.clientX - left, event.clientY - top];
}

const fitting = () => Math.min((camera.width - 2 * MARGIN) / app.photo.width, (camera.height - 2 * MARGIN) / app.photo.height);

/** The whole photo, as large as it can be. */
export function fit() {
  if (!app.photo) return;
  camera.scale = Math.max(1e-4, Math.min(LARGEST, fitting()));
  camera.fitted = true;
  centre(app.photo.width / 2, app.photo.height / 2);
}

/** One pixel of the photo for one of the screen's. */
export function actualSize() {
  zoomTo(1 / devicePixelRatio);
}

/** @param {number} scale @param {number} [x] @param {number} [y] what stays where it is on screen */
export function zoomTo(scale, x = camera.width / 2, y = camera.height / 2) {
  if (!app.photo) return;
  const [px, py] = toPhoto(x, y);
  camera.scale = Math.min(LARGEST, Math.max(Math.min(fitting(), 1) * 0.5, scale));
  camera.fitted = false;
  camera.x = px - x / camera.scale;
  camera.y = py - y / camera.scale;
  bound();
}

/** @param {number} factor */
export const zoomBy = (factor, x, y) => zoomTo(camera.scale * factor, x, y);

/** @param {number} dx @param {number} dy screen pixels that the photo moves by */
export function panBy(dx, dy) {
  camera.x -= dx / camera.scale;
  camera.y -= dy / camera.scale;
  camera.fitted = false;
  bound();
}

function centre(x, y) {
  camera.x = x - camera.width / 2 / camera.scale;
  camera.y = y - camera.height / 2 / camera.scale;
  emit("camera");
}

const PIXELS_SEEN = 4; // screen pixels for a pixel of the photo, from which single pixels are told apart
const [COARSE, FINE] = [1024, 2048];

/** How fine outlines are asked for: coarse while all of a large photo is shown, pixel by pixel where pixels are seen. */
export function outlineDetail() {
  const isWhole = app.photo && camera.scale <= fitting() * 1.01;
  const isLarge = app.photo && Math.max(app.photo.width, app.photo.height) > FINE;
  return { max_side: isWhole && isLarge ? COARSE : FINE, ...(camera.scale >= PIXELS_SEEN && { tolerance: 0 }) };
}

/** Moves the camera no more than needed to have a point of the photo well inside. */
export function reveal(x, y) {
  const [sx, sy] = toScreen(x, y);
  const border = Math.min(40, camera.width / 4, camera.height / 4);
  const out = (value, size) => Math.min(0, value - border) + Math.max(0, value - size + border);
  const [dx, dy] = [out(sx, camera.width), out(sy, camera.height)];
  if (dx || dy) panBy(-dx, -dy);
}

/** The photo cannot be lost: its middle part stays within the surface. */
function bound() {
  const keep = (at, seen, size) => Math.min(Math.max(at, -seen * 0.75), size - seen * 0.25);
  camera.x = keep(camera.x, camera.width / camera.scale, app.photo.width);
  camera.y = keep(camera.y, camera.height / camera.scale, app.photo.height);
  emit("camera");
}

/** The surface has another size: the same middle stays, or the photo fits again. */
export function resize(width, height) {
  const [x, y] = toPhoto(camera.width / 2, camera.height / 2);
  [camera.width, camera.height] = [Math.max(1, width), Math.max(1, height)];
  if (camera.fitted) fit();
  else centre(x, y);
}
