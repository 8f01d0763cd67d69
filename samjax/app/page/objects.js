// The list of objects, and what can be done to each.

import { correctSelected, deleteObject, hideObject } from "./actions.js";
import { area, byId, count, icon, iconButton, make, replaceChildren } from "./dom.js";
import { markTaken } from "./everything.js";
import { changeFields } from "./history.js";
import { app, colourOf, emit, nameOf, on } from "./state.js";
import { complain } from "./messages.js";
import { faultOf, tidy } from "./names.js";
import { select } from "./tools.js";
import { findObject, work } from "./work.js";

const SOURCES = { prompts: "from prompts", everything: "from everything-mode", import: "imported" };

export function startObjects() {
  on("work selection classes photo", renderObjects);
  on("work", markTaken);
  on("hover", markHovered);
}

/** @type {Map<string, {row: HTMLElement, facts: string}>} rows are made anew only where something in them has changed */
const known = new Map();

function renderObjects() {
  const rows = work.objects.filter((object) => !object.deleted);
  byId("object-count").textContent = String(rows.length);
  byId("no-objects").hidden = rows.length > 0;
  byId("hide-all").setAttribute("aria-pressed", String(app.hideAll));
  // What is being typed into is not taken away below the hands.
  const typing = document.activeElement?.matches("#objects input[type=text]") ? document.activeElement : null;
  const value = typing?.value;
  replaceChildren(byId("objects"), rows.map(rowOf));
  for (const id of known.keys()) if (!rows.some((object) => object.id === id)) known.delete(id);
  markHovered();
  const again = document.activeElement;
  if (typing && again?.matches("#objects input[type=text]")) again.value = value;
}

function rowOf(object) {
  const { id, name, hidden, score, number, unsaved, area, clicks } = object;
  const selected = id === app.selected;
  const facts = JSON.stringify([name, object.class, object.colour, colourOf(object), hidden, score, number, unsaved, area, clicks,
    unsaved && work.trouble.text, selected, selected && app.classes.map((other) => other.name)]);
  if (known.get(id)?.facts !== facts) known.set(id, { row: makeRow(object, selected), facts });
  return known.get(id).row;
}

/** The buttons find the object as it then is: a row outlives changes to what it does not show. */
function makeRow(object, selected) {
  const current = () => findObject(object.id);
  const colour = colourOf(object);
  const swatch = make("span", { class: "swatch" });
  swatch.style.backgroundColor = colour;
  const name = nameOf(object);
  const facts = [object.name ? object.class : null, object.score === null ? null : object.score.toFixed(2)].filter(Boolean);
  const item = make("li", { class: `object${selected ? " selected" : ""}${object.hidden ? " is-hidden" : ""}`, dataset: { id: object.id } },
    make("div", { class: "row" },
      make("button", { class: "name", "aria-pressed": selected, dataset: { key: `${object.id} name` },
        onclick: () => select(selected ? null : object.id), ondblclick: () => (select(object.id), correctSelected()) },
      swatch, make("span", { class: "ellipsis", dir: "auto" }, name), make("span", { class: "facts" }, facts.join(" · ")),
      object.unsaved
        ? make("span", { class: work.trouble.text ? "unsaved bad" : "unsaved" }, work.trouble.text ? "not saved" : "saving") : null),
      iconButton(object.hidden ? "hide" : "show", `${object.hidden ? "Show" : "Hide"} ${name}`, () => hideObject(current()),
        { dataset: { key: `${object.id} hide` } }),
      iconButton("delete", `Delete ${name}`, () => deleteObject(current()), { dataset: { key: `${object.id} delete` } })),
    selected ? details(object, colour, current) : null);
  item.onpointerenter = () => hoverRow(object.id);
  item.onpointerleave = () => hoverRow(null);
  return item;
}

function hoverRow(id) {
  app.hovered = id;
  emit("hover");
}

function markHovered() {
  for (const item of byId("objects").children) item.classList.toggle("hovered", item.dataset.id === app.hovered);
}

function details(object, colour, current) {
  const key = (name) => ({ key: `${object.id} ${name}` });
  const input = make("input", { type: "text", dir: "auto", value: object.name ?? "", maxLength: 200, autocomplete: "off",
    placeholder: nameOf(object), dataset: key("input"),
    onchange() {
      const fault = faultOf(input.value);
      if (!fault) return changeFields("Object renamed", [current()], { name: tidy(input.value) });
      input.value = object.name ?? "";
      complain(`${fault} It is not changed.`, { topic: "name" });
    },
    onkeydown: (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault(); // or Enter would press what gets the focus
      if (event.key === "Escape") input.value = object.name ?? "";
      input.blur(); // which renames the object
      byId("objects").querySelector(`[data-key="${CSS.escape(`${object.id} name`)}"]`)?.focus();
    } });
  const names = [...new Set([...app.classes.map((known) => known.name), object.class])].filter(Boolean);
  const choice = make("select", { dataset: key("class"),
    onchange: () => changeFields("Class changed", [current()], { class: choice.value || null }) },
  make("option", { value: "" }, "No class"), ...names.map((name) => make("option", { value: name }, name)));
  choice.value = object.class ?? "";
  const picker = make("input", { type: "color", value: colour, dataset: key("colour"),
    onchange: () => changeFields("Object recoloured", [current()], { colour: picker.value }) });
  return make("div", { class: "details" },
    make("label", {}, "Name", input), make("label", {}, "Class", choice),
    make("label", {}, "Colour", make("span", { class: "colour" }, picker,
      object.colour ? make("button", { class: "text small", dataset: key("uncolour"),
        onclick: () => changeFields("Object recoloured", [current()], { colour: null }) }, "As its class") : null)),
    make("p", { class: "facts" }, [area(object.area),
      object.clicks ? count(object.clicks, "click") : SOURCES[object.source] ?? object.source].join(" · ")),
    make("button", { class: "button", dataset: key("correct"), onclick: correctSelected }, icon("edit"), "Correct"));
}

const focusDetail = (name) => {
  if (!app.selected) return false;
  // A press of the tab of a sheet that is open would fold it away.
  const tab = byId("tab-objects");
  const isOpen = tab.getAttribute("aria-selected") === "true" && !document.body.classList.contains("folded");
  if (!isOpen) tab.click();
  const element = byId("objects").querySelector(`[data-key="${CSS.escape(`${app.selected} ${name}`)}"]`);
  element?.focus();
  return element;
};

export const rename = () => focusDetail("input")?.select();

export function recolour() {
  const picker = focusDetail("colour");
  if (picker) picker.showPicker?.();
}
