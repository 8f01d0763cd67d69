// The keys: what they do, and what they are called. The help dialog shows this table, and the documentation repeats it.

import * as actions from "./actions.js";
import { open, openExport } from "./dialogs.js";
import { toggleThree } from "./draft.js";
import { byId } from "./dom.js";
import { redo, undo } from "./history.js";
import { recolour, rename } from "./objects.js";
import { openNext, toggleDone } from "./photos.js";
import { holdSpace } from "./pointer.js";
import { app } from "./state.js";
import { setting } from "./storage.js";
import { nextTheme } from "./theme.js";

const key = (press, shown, what, run) => ({ press: [].concat(press), shown: [].concat(shown), what, run });

export const KEYS = [
  { title: "Tools", keys: [
    key("p", "P", "Point", () => actions.useTool("point")),
    key("b", "B", "Box", () => actions.useTool("box")),
    key("l", "L", "Lasso", () => actions.useTool("lasso")),
    key("d", "D", "Brush", () => actions.useTool("brush")),
    key("v", "V", "Select", () => actions.useTool("select")),
    key("h", "H", "Move the photo", () => actions.useTool("pan")),
    key("e", "E", "Everything-mode, on and off", () => actions.useTool("everything")),
    key("x", "X", "Clicks mark the object or the background; brush adds or erases",
      () => (app.tool === "brush" ? actions.toggleErase() : actions.flipLabel())),
    key(["[", "]"], ["[", "]"], "Smaller or larger brush", (name) => actions.resizeBrush(name === "]" ? 1.25 : 0.8)),
    key("w", "W", "Preview below the pointer, on and off", actions.togglePreview),
  ] },
  { title: "Mask in progress", keys: [
    key("Enter", "Enter", "Accept the mask; close a lasso; in everything-mode keep the mask", actions.accept),
    key("Escape", "Esc", "Cancel", actions.cancel),
    key([",", "."], [",", "."], "Previous or next of the three masks",
      (name) => (name === "." ? actions.nextMask() : actions.previousMask())),
    key("m", "M", "Three masks or one", toggleThree),
    key("ctrl+z", "Ctrl+Z", "Undo a click or a change", undo),
    key(["ctrl+shift+z", "ctrl+y"], ["Ctrl+Shift+Z", "Ctrl+Y"], "Redo", redo),
  ] },
  { title: "Objects", keys: [
    key(["j", "k"], ["J", "K"], "Next or previous object, or mask in everything-mode",
      (name) => actions.selectNext(name === "j" ? 1 : -1)),
    key("c", "C", "Correct the selected object", actions.correctSelected),
    key(["n", "F2"], ["N", "F2"], "Rename it", rename),
    key("o", "O", "Choose its colour", recolour),
    key("i", "I", "Hide or show it", () => actions.hideObject()),
    key("shift+i", "Shift+I", "Hide or show all", actions.hideAll),
    key(["Delete", "Backspace"], ["Delete"], "Delete it", () => actions.deleteObject()),
    key(["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"], ["1", "…", "9"], "Class of the mask, the object, or those to come; 0 for none",
      (name) => actions.useClassKey(Number(name))),
  ] },
  { title: "Photo", keys: [
    key(["PageDown", "PageUp"], ["Page Down", "Page Up"], "Next or previous photo", (name) => openNext(name === "PageDown" ? 1 : -1)),
    key("g", "G", "Mark the photo as done", toggleDone),
    key(["+", "=", "-"], ["+", "−"], "Zoom", (name) => (name === "-" ? actions.zoomOut() : actions.zoomIn())),
    key("f", "F", "Fit to window", actions.fit),
    key("shift+f", "Shift+F", "Actual size", actions.actualSize),
    key([], ["Space"], "Hold it and drag to move the photo", null),
    key([], ["Wheel"], "Zoom; with Shift sideways", null),
  ] },
  { title: "Crosshair, in the photo", keys: [
    key([], ["←", "↑", "→", "↓"], "Move it; Shift by one pixel, Ctrl far", null),
    key([], ["Space"], "Click there; Shift+Space marks the background. Twice for a box, a lasso's corners, brush down and up", null),
  ] },
  { title: "Page", keys: [
    key("ctrl+e", "Ctrl+E", "Export", openExport),
    key("t", "T", "Light, dark or system theme", nextTheme),
    key("?", "?", "Keyboard shortcuts", () => open("help-dialog")),
  ] },
];

/** @type {Map<string, (name: string) => void>} each is given the name of its key */
const table = new Map(KEYS.flatMap(({ keys }) => keys.flatMap(({ press, run }) => (run ? press.map((name) => [name, run]) : []))));
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function startKeys() {
  const box = byId("single-keys");
  box.checked = setting("single-keys") !== "off";
  box.onchange = () => setting("single-keys", box.checked ? "on" : "off");
  addEventListener("keydown", pressed);
  addEventListener("keyup", (event) => {
    if (event.key !== " ") return;
    const moved = holdSpace(false);
    if (!moved && document.activeElement === byId("surface") && app.photo) actions.clickCrosshair(event.shiftKey);
  });
  addEventListener("blur", () => holdSpace(false));
}

const PLACES = { BracketLeft: "[", BracketRight: "]", Comma: ",", Period: "." };

/** What a key types; where that is no key of the table, e.g. in Cyrillic or Greek, what it has on an English keyboard. */
export function nameOfKey({ key, code, shiftKey }) {
  if (key.length !== 1) return key;
  const typed = key.toLowerCase();
  const isLetter = /^[a-z0-9]$/.test(typed);
  if (isLetter || table.has(typed)) return typed;
  if (key.codePointAt(0) > 127 && code?.startsWith("Key")) return code.slice(3).toLowerCase();
  if (!shiftKey && code?.startsWith("Digit")) return code.slice(5);
  return (key.codePointAt(0) > 127 && PLACES[code]) || typed;
}

function pressed(event) {
  const target = event.target instanceof Element ? event.target : document.body;
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  const inPhoto = target === byId("surface");
  if (target.matches("input:not([type=range], [type=color], [type=checkbox]), select, textarea")) return;
  const isThirdLevel = event.getModifierState("AltGraph"); // which is Ctrl and Alt on some systems
  const control = (event.ctrlKey || event.metaKey) && !isThirdLevel;
  if (inPhoto && event.key === " ") {
    event.preventDefault();
    if (!event.repeat) holdSpace(true);
    return;
  }
  if (ARROWS[event.key] && inPhoto) {
    event.preventDefault();
    return actions.moveCrosshair(...ARROWS[event.key], event.shiftKey ? "fine" : control ? "far" : "normal");
  }
  if (target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key)) return; // the slider's own keys
  // AltGr or Option types the brackets of many keyboards; Alt with letters is the browser's.
  if (event.altKey && !isThirdLevel && !["[", "]"].includes(event.key)) return;
  // Enter and Space press the button that has the focus.
  if (event.key === "Enter" && target.matches("button, a, summary")) return;
  const name = nameOfKey(event);
  const modifiers = `${control ? "ctrl+" : ""}${event.shiftKey && (control || /^[a-z]$/.test(name)) ? "shift+" : ""}`;
  const run = table.get(`${modifiers}${name}`);
  if (!run) return;
  if (!control && event.key.length === 1 && !byId("single-keys").checked && !inPhoto) return;
  event.preventDefault();
  run(name);
}
