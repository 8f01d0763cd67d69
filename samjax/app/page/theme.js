// Light or dark: the system's, or what was chosen here.

import { announce } from "./messages.js";
import { emit } from "./state.js";
import { setting } from "./storage.js";

const NAMES = { auto: "System", light: "Light", dark: "Dark" };

export function startTheme() {
  use(setting("theme") ?? "auto");
}

function use(name) {
  const known = name in NAMES ? name : "auto";
  document.documentElement.dataset.theme = known;
  emit("theme");
  return known;
}

export function nextTheme() {
  const names = Object.keys(NAMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
  setting("theme", use(next));
  announce(`Colours: ${NAMES[next]}.`);
}
