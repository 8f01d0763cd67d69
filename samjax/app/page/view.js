// The two canvases: the photo, and what is drawn on it. They are drawn once a frame, when something has changed.

import { camera, resize } from "./camera.js";
import { byId } from "./dom.js";
import { drawOverlay } from "./overlay.js";
import { app, emit, on } from "./state.js";
import { Tiles } from "./tiles.js";

/** @type {Tiles|null} */
let tiles = null;
const stale = { picture: true, overlay: true };
let scheduled = false;
/** @type {(() => void)[]} */
let afterDrawing = [];

/** @param {"picture"|"overlay"} [which] both if left out */
export function redraw(which) {
  if (which !== "picture") stale.overlay = true;
  if (which !== "overlay") stale.picture = true;
  if (!scheduled) requestAnimationFrame(draw);
  scheduled = true;
}

/** Resolves when what the page knows now is on the canvas. */
export function drawn() {
  redraw("overlay");
  return new Promise((resolve) => afterDrawing.push(() => resolve(undefined)));
}

function draw() {
  scheduled = false;
  const density = devicePixelRatio;
  for (const which of /** @type {const} */ (["picture", "overlay"])) {
    if (!stale[which]) continue;
    stale[which] = false;
    /** @type {HTMLCanvasElement} */
    const canvas = byId(which);
    const [width, height] = [Math.round(camera.width * density), Math.round(camera.height * density)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!app.photo) continue;
    if (which === "picture") tiles?.draw(context, density);
    else drawOverlay(context, density, () => redraw("overlay"));
  }
  const due = afterDrawing;
  afterDrawing = [];
  for (const call of due) call();
}

/** Shows the photo that the state names. */
export function showPhoto() {
  tiles?.close();
  tiles = app.photo && new Tiles(app.photo, app.session.tile, () => redraw("picture"));
  redraw();
}

export function startView() {
  const surface = byId("surface");
  new ResizeObserver(() => {
    resize(surface.clientWidth, surface.clientHeight);
    redraw();
  }).observe(surface);
  resize(surface.clientWidth, surface.clientHeight);
  on("camera", () => redraw());
  on("work draft tool selection hover everything cursor classes shape", () => redraw("overlay"));
  on("camera photo", () => {
    byId("zoom").textContent = app.photo ? `${percent(camera.scale * devicePixelRatio)} %` : "–";
  });
  emit("camera");
}

const percent = (share) => (share >= 0.1 ? Math.round(share * 100) : (share * 100).toFixed(1));
