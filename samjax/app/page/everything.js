// Everything-mode: all that the model finds in the photo, to be accepted mask by mask.

import { ApiError, everything as find } from "./api.js";
import { count } from "./dom.js";
import { perform } from "./history.js";
import { smallestAt } from "./masks.js";
import { announce, complain, say } from "./messages.js";
import { app, emit } from "./state.js";
import { setting } from "./storage.js";
import { newId, work } from "./work.js";

export const everything = {
  on: false,
  running: false,
  progress: 0,
  /** @type {any[]} {index, iou, stability, area, box, polygons, taken} */
  masks: [],
  /** @type {any} */
  hovered: null,
  config: null,
};

export const SETTINGS = [
  { name: "points_per_side", label: "Points per side", kind: "whole", least: 1, most: 128, hint: "32" },
  { name: "pred_iou_thresh", label: "Minimum score", kind: "number", least: 0, most: 1, hint: "model default" },
  { name: "stability_score_thresh", label: "Minimum stability", kind: "number", least: 0, most: 1, hint: "model default" },
  { name: "min_mask_region_area", label: "Minimum region area (pixels)", kind: "whole", least: 0, most: 1e6, hint: "0" },
  { name: "crop_n_layers", label: "Crop layers", kind: "whole", least: 0, most: 3, hint: "0" },
];

let asked = new AbortController();

/** @returns {Object<string, number>} */
export const settings = () => JSON.parse(setting("everything") ?? "{}");

/** Leaves the mode, or what is being computed. */
export function stopEverything() {
  asked.abort();
  Object.assign(everything, { on: false, running: false, masks: [], hovered: null, progress: 0 });
  emit("everything");
}

export async function startEverything() {
  asked.abort();
  const { signal } = (asked = new AbortController());
  Object.assign(everything, { on: true, running: true, masks: [], hovered: null, progress: 0, config: null });
  emit("everything");
  const photo = app.photo.id;
  try {
    const finished = { done: false };
    await find({ photo, config: settings(), format: "polygons" }, (line) => {
      if (signal.aborted) return;
      if (line.error) throw new ApiError(500, line.error);
      if (line.progress !== undefined) everything.progress = line.progress;
      if (line.config) everything.config = line.config; // the first line: masks may be kept as they come
      if (line.mask) everything.masks.push({ ...line.mask, taken: false });
      if (line.done) finished.done = true;
      emit("everything");
    }, signal);
    if (!finished.done) throw new ApiError(0, "The answer ended before its end.");
    everything.running = false;
    markTaken();
    emit("everything");
    say(everything.masks.length
      ? `${count(everything.masks.length, "mask")} found. Point at one and click, or press Enter, to keep it.`
      : "Nothing was found. Lower the scores in the settings, or more points per side, find more.", { topic: "everything" });
  } catch (error) {
    if (signal.aborted) return;
    stopEverything();
    complain(`Everything-mode: ${error.message}`, { topic: "everything", action: { label: "Try again", run: startEverything } });
  }
}

/** Masks that are objects already are not offered again. */
export function markTaken() {
  const kept = new Set(work.objects.filter((object) => !object.deleted).map(({ area, box }) => `${area} ${box}`));
  for (const mask of everything.masks) mask.taken = kept.has(`${mask.area} ${mask.box}`);
  if (everything.hovered?.taken) everything.hovered = null;
}

export function hoverEverything(at) {
  const hovered = smallestAt(everything.masks.filter((mask) => !mask.taken), at);
  if (hovered === everything.hovered) return;
  everything.hovered = hovered;
  emit("hover");
}

/** Goes through the masks by keyboard, from top to bottom. @param {number} direction */
export function hoverNext(direction) {
  const open = everything.masks.filter((mask) => !mask.taken).sort((one, other) => one.box[1] - other.box[1] || one.index - other.index);
  if (!open.length) return;
  const at = open.indexOf(everything.hovered);
  everything.hovered = open[(at < 0 ? (direction > 0 ? 0 : open.length - 1) : at + direction + open.length) % open.length];
  announce(`Mask ${open.indexOf(everything.hovered) + 1} of ${open.length}, score ${everything.hovered.iou.toFixed(2)}.`);
  emit("hover");
}

/** Keeps masks as objects. @param {any[]} masks */
export function acceptFound(masks) {
  const open = masks.filter((mask) => mask && !mask.taken);
  if (!open.length) return;
  const objects = open.map(({ index, iou, area, box, polygons }) => ({
    body: { id: newId(), everything: { config: everything.config, index }, class: app.activeClass },
    shown: { polygons, area, box, score: iou, source: "everything" },
  }));
  for (const mask of open) mask.taken = true;
  const flag = (deleted) => ({ kind: "change", changes: objects.map(({ body }) => ({ id: body.id, deleted })) });
  perform(open.length > 1 ? `${open.length} masks kept` : "Mask kept", { kind: "add", objects }, flag(true), flag(false));
  everything.hovered = null;
  announce(`${count(open.length, "object")} added${app.activeClass ? ` to ${app.activeClass}` : ""}.`);
  emit("everything");
}
