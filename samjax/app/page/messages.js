// What the page says: on screen, and to screen readers.

import { byId, focusPhoto, iconButton, make } from "./dom.js";

/** @type {Map<string, HTMLElement>} */
const shown = new Map();

/** Says something in passing, to screen readers only. */
export function announce(text) {
  const live = byId("live");
  live.textContent = live.textContent === text ? `${text}\u00a0` : text; // the same text twice is read twice
}

/**
 * Shows a message that stays a while, or until it is closed if it is an error.
 * @param {string} text
 * @param {{kind?: "info"|"error", topic?: string, stays?: boolean, action?: {label: string, run: () => void}}} [options]
 *   topic: a later message on the same takes its place. stays: until it is closed.
 */
export function say(text, { kind = "info", topic = text, stays = false, action } = {}) {
  const close = () => settle(topic);
  const element = make("div", { class: `message ${kind}` }, make("p", {}, text),
    action ? make("button", { class: "text small", onclick: () => (close(), action.run()) }, action.label) : null,
    iconButton("cancel", "Dismiss", close));
  const repeated = shown.has(topic);
  settle(topic);
  shown.set(topic, element);
  byId("messages").append(element);
  while (shown.size > 4) settle(shown.keys().next().value);
  if (kind === "error") {
    if (!repeated) byId("alert").textContent = text; // once, not at every try
  } else {
    announce(text);
    if (!stays) setTimeout(() => shown.get(topic) === element && close(), 5000);
  }
}

/** @param {string} text @param {{topic?: string, action?: {label: string, run: () => void}}} [options] */
export const complain = (text, options = {}) => say(text, { kind: "error", ...options });

/** Takes away the message on a topic, if there is one. */
export function settle(topic) {
  const element = shown.get(topic);
  if (element?.contains(document.activeElement)) focusPhoto();
  element?.remove();
  shown.delete(topic);
}

/** Takes away the newest message; false if there is none. */
export function dismiss() {
  const topic = [...shown.keys()].pop();
  if (topic === undefined) return false;
  settle(topic);
  return true;
}
