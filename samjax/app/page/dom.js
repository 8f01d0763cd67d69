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

/** The keys are the photo's again. */
export const focusPhoto = () => byId("surface").focus({ preventScroll: true });

/**
 * Makes an element's children those that are given; those that stay are left where they are. The focus stays with the
 * one whose `dataset.key` had it. Where that is gone it goes to what now has its place (the control of the same kind, or
 * the first), to the last, or else to the element that the parent names by `data-focus`, which is the photo if it names none.
 * @param {HTMLElement} parent @param {HTMLElement[]} children
 */
export function replaceChildren(parent, children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.closest("[data-key]")?.getAttribute("data-key");
  const place = [...parent.children].findIndex((child) => child.contains(focused));
  const kept = new Set(children);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  children.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
  if (!focused || focused === document.activeElement) return;
  const focus = (/** @type {any} */ element) => (element?.focus({ preventScroll: true }), parent.contains(document.activeElement));
  if (key && focus(parent.querySelector(`[data-key="${CSS.escape(key)}"]`))) return;
  const near = parent.matches("ul, ol") ? parent.children[Math.min(place, children.length - 1)] : null;
  const words = key?.split(" ") ?? [];
  const isAlike = (other) => other[0] === words[0] || other.at(-1) === words.at(-1);
  const alike = [...near?.querySelectorAll("[data-key]") ?? []].find((element) => isAlike(element.dataset.key.split(" ")));
  if (focus(alike) || focus(near?.querySelector("button:enabled, input"))) return;
  byId(parent.dataset.focus ?? "surface").focus({ preventScroll: true });
}

/** @param {number} value @param {string} one @param {string} [many] */
export const count = (value, one, many = `${one}s`) => `${value.toLocaleString("en")} ${value === 1 ? one : many}`;

/** 1,234 px or 1.2 MP */
export const area = (pixels) => pixels < 1e6 ? `${pixels.toLocaleString("en")} px` : `${(pixels / 1e6).toFixed(1)} MP`;
