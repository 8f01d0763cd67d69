// The list of objects, and what can be done to each.

import { correctSelected, deleteObject, hideObject } from "./actions.js";
import { area, byId, count, icon, iconButton, make, replaceChildren } from "./dom.js";
import { markTaken } from "./everything.js";
import { changeFields } from "./history.js";
import { app, colourOf, emit, nameOf, on } from "./state.js";
import { select } from "./tools.js";
import { work } from "./work.js";

const SOURCES = { prompts: "from prompts", everything: "from everything-mode", import: "opened annotation" };

export function startObjects() {
  on("work selection classes photo", renderObjects);
  on("work", markTaken);
  on("hover", markHovered);
}

function renderObjects() {
  const rows = work.objects.filter((object) => !object.deleted);
  byId("object-count").textContent = String(rows.length);
  byId("no-objects").hidden = rows.length > 0;
  byId("hide-all").setAttribute("aria-pressed", String(app.hideAll));
  // What is being typed into is not taken away below the hands.
  const typing = document.activeElement?.matches("#objects input[type=text]") ? document.activeElement : null;
  const value = typing?.value;
  replaceChildren(byId("objects"), rows.map(row));
  const again = document.activeElement;
  if (typing && again?.matches("#objects input[type=text]")) again.value = value;
}

function row(object) {
  const selected = object.id === app.selected;
  const colour = colourOf(object);
  const swatch = make("span", { class: "swatch" });
  swatch.style.backgroundColor = colour;
  const name = nameOf(object);
  const facts = [object.name ? object.class : null, object.score === null ? null : object.score.toFixed(2)].filter(Boolean);
  const item = make("li", { class: `object${selected ? " selected" : ""}${object.hidden ? " is-hidden" : ""}`, dataset: { id: object.id } },
    make("div", { class: "row" },
      make("button", { class: "name", "aria-pressed": selected, dataset: { key: `${object.id} name` },
        onclick: () => select(selected ? null : object.id), ondblclick: () => (select(object.id), correctSelected()) },
      swatch, make("span", { class: "ellipsis" }, name), make("span", { class: "facts" }, facts.join(" · ")),
      object.unsaved
        ? make("span", { class: work.trouble.text ? "unsaved bad" : "unsaved" }, work.trouble.text ? "not saved" : "saving") : null),
      iconButton(object.hidden ? "hide" : "show", `${object.hidden ? "Show" : "Hide"} ${name}`, () => hideObject(object),
        { dataset: { key: `${object.id} hide` }, "aria-pressed": object.hidden }),
      iconButton("delete", `Delete ${name}`, () => deleteObject(object), { dataset: { key: `${object.id} delete` } })),
    selected ? details(object, colour) : null);
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

function details(object, colour) {
  const key = (name) => ({ key: `${object.id} ${name}` });
  const input = make("input", { type: "text", value: object.name ?? "", maxLength: 200, autocomplete: "off",
    placeholder: nameOf(object), dataset: key("input"),
    onchange: () => changeFields("Object renamed", [object], { name: input.value.trim() }),
    onkeydown: (event) => {
      if (event.key === "Enter") input.blur();
      if (event.key === "Escape") [input.value] = [object.name ?? ""], input.blur();
    } });
  const names = [...new Set([...app.classes.map((known) => known.name), object.class])].filter(Boolean);
  const choice = make("select", { dataset: key("class"),
    onchange: () => changeFields("Class changed", [object], { class: choice.value || null }) },
  make("option", { value: "" }, "No class"), ...names.map((name) => make("option", { value: name }, name)));
  choice.value = object.class ?? "";
  const picker = make("input", { type: "color", value: colour, dataset: key("colour"),
    onchange: () => changeFields("Object recoloured", [object], { colour: picker.value }) });
  return make("div", { class: "details" },
    make("label", {}, "Name", input), make("label", {}, "Class", choice),
    make("label", {}, "Colour", make("span", { class: "colour" }, picker,
      object.colour ? make("button", { class: "text small", dataset: key("uncolour"),
        onclick: () => changeFields("Object recoloured", [object], { colour: null }) }, "As its class") : null)),
    make("p", { class: "facts" }, [area(object.area),
      object.clicks ? count(object.clicks, "click") : SOURCES[object.source] ?? object.source].join(" · ")),
    make("button", { class: "button", dataset: key("correct"), onclick: correctSelected }, icon("edit"), "Correct"));
}

const focusDetail = (name) => {
  if (!app.selected) return false;
  byId("tab-objects").click();
  const element = byId("objects").querySelector(`[data-key="${CSS.escape(`${app.selected} ${name}`)}"]`);
  element?.focus();
  return element;
};

export const rename = () => focusDetail("input")?.select();

export function recolour() {
  const picker = focusDetail("colour");
  if (picker) picker.showPicker?.();
}
