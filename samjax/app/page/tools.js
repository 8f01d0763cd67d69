// What a click, a drag and a key do with each tool. Coordinates are pixels of the photo; integers name pixels.

import { addBox, addLasso, addPoint, addStroke } from "./draft.js";
import { everything, acceptFound, hoverEverything } from "./everything.js";
import { smallestAt } from "./masks.js";
import { announce, say } from "./messages.js";
import { clearHover, hoverAt } from "./preview.js";
import { app, emit } from "./state.js";
import { work } from "./work.js";

/** What is being drawn, and where the pointer is. */
export const shape = { current: /** @type {any} */ (null), pointer: /** @type {number[]|null} */ (null) };

// What is drawn has pixel (0, 0) cover 0 to 1, as masks' outlines do; a point or a box's corner names a pixel.
const exact = ([x, y]) => [Math.round(x * 10 + 5) / 10, Math.round(y * 10 + 5) / 10];
const whole = ([x, y]) => [
  Math.min(Math.max(Math.round(x), 0), app.photo.width - 1), Math.min(Math.max(Math.round(y), 0), app.photo.height - 1)];
const inside = ([x, y]) => x > -0.5 && y > -0.5 && x < app.photo.width - 0.5 && y < app.photo.height - 0.5;

function draw(next) {
  shape.current = next;
  emit("shape");
}

/** Leaves out what is being drawn; false if that is nothing. */
export function abandonShape() {
  if (!shape.current) return false;
  draw(null);
  return true;
}

/** The object that is seen at a pixel: the smallest. */
export function objectAt(at) {
  return smallestAt(app.hideAll ? [] : work.objects.filter((object) => !object.deleted && !object.hidden), at);
}

export function select(id) {
  app.selected = id;
  emit("selection");
}

const nothing = { drags: false, tap() {}, hover() {}, begin() {}, move() {}, end() {} };

/** @type {Object<string, typeof nothing & {close?: () => boolean}>} */
export const tools = {
  select: {
    ...nothing,
    tap: (at) => select(objectAt(at)?.id ?? null),
    hover(at) {
      const id = (at && objectAt(at)?.id) ?? null;
      if (id === app.hovered) return;
      app.hovered = id;
      emit("hover");
    },
  },

  point: {
    ...nothing,
    tap(at, label) {
      if (!inside(at)) return;
      clearHover();
      addPoint(...whole(at), label);
    },
    hover: (at) => hoverAt(at && inside(at) ? whole(at) : null),
  },

  box: {
    ...nothing,
    drags: true,
    tap(at) {
      if (shape.current) this.end(at);
      else {
        draw({ kind: "box", from: whole(at), to: whole(at) });
        announce("First corner of the box. Go to the other corner and click again.");
      }
    },
    hover(at) {
      if (shape.current && at) draw({ ...shape.current, to: whole(at) });
    },
    begin: (at) => draw({ kind: "box", from: whole(at), to: whole(at) }),
    move: (at) => shape.current && draw({ ...shape.current, to: whole(at) }),
    end(at) {
      if (!shape.current) return;
      const [[x0, y0], [x1, y1]] = [shape.current.from, whole(at)];
      draw(null);
      if (Math.abs(x1 - x0) >= 2 && Math.abs(y1 - y0) >= 2) {
        addBox([Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]);
      } else say("That box is too small.", { topic: "shape" });
    },
  },

  lasso: {
    ...nothing,
    drags: true,
    tap(at) {
      draw({ kind: "lasso", line: [...(shape.current?.line ?? []), exact(at)], end: exact(at) });
      if (shape.current.line.length === 1) announce("First corner of the outline. Enter closes it.");
    },
    hover(at) {
      if (shape.current && at) draw({ ...shape.current, end: exact(at) });
    },
    begin: (at) => draw({ kind: "lasso", line: [...(shape.current?.line ?? []), exact(at)], free: true }),
    move(at) {
      const line = shape.current?.line;
      const last = line?.at(-1);
      if (line && line.length < 5000 && Math.hypot(at[0] + 0.5 - last[0], at[1] + 0.5 - last[1]) > 0.8) {
        draw({ kind: "lasso", line: [...line, exact(at)], free: true });
      }
    },
    end() {
      this.close();
    },
    /** Closes the outline; false if there is none. */
    close() {
      const line = shape.current?.line;
      if (!line) return false;
      draw(null);
      if (line.length >= 3) addLasso(line);
      else say("An outline needs at least three corners.", { topic: "shape" });
      return true;
    },
  },

  brush: {
    ...nothing,
    drags: true,
    /** Paints a dot; the keyboard lowers and lifts the brush. */
    tap(at, label, byKey = false) {
      if (shape.current) return this.end(at);
      this.begin(at);
      if (byKey) announce("The brush is down. The arrow keys paint, Space lifts it.");
      else this.end(at);
    },
    hover(at) {
      if (at && shape.current) this.move(at);
    },
    begin: (at) => draw({ kind: "stroke", points: [exact(at)], radius: app.brush.radius, erase: app.brush.erase }),
    move(at) {
      if (!shape.current || shape.current.points.length > 5000) return;
      draw({ ...shape.current, points: [...shape.current.points, exact(at)] });
    },
    end() {
      if (!shape.current) return;
      const { points, radius, erase } = shape.current;
      draw(null);
      addStroke({ points, radius, ...(erase && { erase }) });
    },
  },

  pan: nothing,

  everything: {
    ...nothing,
    tap(at) {
      hoverEverything(at);
      if (everything.hovered) acceptFound([everything.hovered]);
    },
    hover: hoverEverything,
  },
};

export const tool = () => tools[app.tool];

/** The label of a click: beside the object with the right button, Shift, or while that is switched on. */
export const labelOf = (other) => (other ? 1 - app.label : app.label);
