// What the page knows, in one place, and who is told of changes.

/**
 * @typedef {[number, number]} XY in pixels of the original photo
 * @typedef {{name: string, colour: string}} ObjectClass
 * @typedef {{points?: [number, number, number][], box?: number[], mask?: any, refine?: boolean, multimask?: boolean,
 *   chosen?: number}} Step one question to the decoder, and the choice among its answers
 * @typedef {{id: string, name: string|null, class: string|null, colour: string|null, hidden: boolean, deleted: boolean,
 *   source: string, score: number|null, area: number, box: number[], polygons: XY[][][], clicks: number,
 *   number: number, unsaved?: boolean}} SegmentedObject number: among those of its class, from 1
 * @typedef {{id: string, name: string, width: number, height: number, levels: number, version: string}} Photo
 */

export const app = {
  /** @type {any} the server's answer to /api/session */
  session: null,
  /** @type {any[]} */
  photos: [],
  /** @type {Photo|null} the photo that is shown */
  photo: null,
  /** @type {string|null} why the chosen photo cannot be shown */
  photoError: null,
  photoId: null,
  /** @type {ObjectClass[]} */
  classes: [],
  /** @type {string|null} of new objects */
  activeClass: null,
  tool: "point",
  label: 1,
  brush: { radius: 12, erase: false },
  preview: true,
  hideAll: false,
  /** @type {string|null} the selected object */
  selected: null,
  /** @type {string|null} the object below the pointer */
  hovered: null,
  /** @type {XY|null} the keyboard's crosshair */
  cursor: null,
  embedding: { state: "none", share: 0 },
};

/** @type {Map<string, Set<() => void>>} */
const listeners = new Map();
const pending = new Set();

/** Calls `listener` after any of the events, once for several in one turn. */
export function on(events, listener) {
  for (const event of events.split(" ")) {
    if (!listeners.has(event)) listeners.set(event, new Set());
    listeners.get(event).add(listener);
  }
}

/** @param {string} events */
export function emit(events) {
  for (const event of events.split(" ")) {
    for (const listener of listeners.get(event) ?? []) {
      if (!pending.size) queueMicrotask(flush);
      pending.add(listener);
    }
  }
}

function flush() {
  const due = [...pending];
  pending.clear();
  for (const listener of due) listener();
}

let last = 0;

/** A number for the order in which things were done; later ones are higher, also after a reload. */
export const stamp = () => (last = Math.max(last + 1, Date.now()));

/** Distinct on photos and from each other; the first are the most used. */
export const PALETTE = ["#1ec8b7", "#ff8a3d", "#7c8cff", "#f25f9c", "#f2c230", "#4fb8ff", "#9bd53c", "#c77dff", "#ff6b5e",
  "#59d98e", "#d9a066", "#a7b1c2"];

/** @param {SegmentedObject} object */
export function colourOf(object) {
  const ofClass = app.classes.find((known) => known.name === object.class)?.colour;
  if (object.colour ?? ofClass) return object.colour ?? ofClass;
  const free = PALETTE.filter((colour) => !app.classes.some((known) => known.colour === colour));
  const colours = free.length ? free : PALETTE;
  return colours[(object.number - 1) % colours.length];
}

/** What is kept in the browser belongs to a photo of this name and these pixels, whichever folder is served here. */
export const subjectOf = (photo) => `${photo.id}.${photo.version}`;

/** What an object is called in lists and messages. @param {SegmentedObject} object */
export const nameOf = (object) => object.name || `${object.class ?? "Object"} ${object.number}`;
