// Small means to build the page's elements. Text goes in as text nodes only, so names cannot become markup.

/** @param {string} id @returns {any} the element of that id, which index.html has */
export const byId = (id) => document.getElementById(id);

/**
 * An element with properties, listeners (onclick) and attributes (with a dash, or role), and children.
 * @param {string} tag
 * @param {Object<string, any>} [properties]
 * @param {...(Node|string|null|false)} children
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, String(value));
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element[name === "class" ? "className" : name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== false));
  return element;
}

/** @param {string} name a symbol of index.html */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button that shows an icon and is named by its label. */
export function iconButton(symbol, label, onclick, properties = {}) {
  return make("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...properties },
    icon(symbol));
}

/**
 * Replaces an element's children and keeps the focus on the one whose `dataset.key` had it.
 * @param {HTMLElement} parent @param {Node[]} children
 */
export function replaceChildren(parent, children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.closest("[data-key]")?.getAttribute("data-key");
  parent.replaceChildren(...children);
  if (key) parent.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** @param {number} value @param {string} one @param {string} [many] */
export const count = (value, one, many = `${one}s`) => `${value.toLocaleString("en")} ${value === 1 ? one : many}`;

/** 1,234 px or 1.2 MP */
export const area = (pixels) => pixels < 1e6 ? `${pixels.toLocaleString("en")} px` : `${(pixels / 1e6).toFixed(1)} MP`;
