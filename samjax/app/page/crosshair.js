// What is at the keyboard's crosshair, for screen readers: where it rests, not at every key.

import { draft, shownAnswer } from "./draft.js";
import { covers } from "./masks.js";
import { announce } from "./messages.js";
import { app, nameOf, on } from "./state.js";
import { objectAt } from "./tools.js";

const REST = 400; // milliseconds without movement
let timer = 0;

export function startCrosshair() {
  on("cursor", () => {
    clearTimeout(timer);
    if (app.cursor) timer = setTimeout(() => app.cursor && announce(`${app.cursor.join(", ")}${below(app.cursor)}`), REST);
  });
}

function below(at) {
  const answer = draft.active && shownAnswer();
  if (answer) return covers(answer, at) ? ", in the mask" : ", outside the mask";
  const object = objectAt(at);
  return object ? `, ${nameOf(object)}` : "";
}
