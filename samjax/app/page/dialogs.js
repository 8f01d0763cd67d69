// The dialogs: keys, export, settings of everything-mode.

import { useTool } from "./actions.js";
import { exportAs } from "./api.js";
import { count, byId, make } from "./dom.js";
import { SETTINGS, settings, startEverything } from "./everything.js";
import { KEYS } from "./keys.js";
import { announce } from "./messages.js";
import { app } from "./state.js";
import { setting } from "./storage.js";
import { work } from "./work.js";

const LISTED = 20; // photos that could not be exported

const FORMATS = {
  coco: "COCO: one JSON for all photos, masks as run lengths",
  rle: "RLE: one JSON for each photo",
  png: "PNG: one black and white picture for each object",
  labelmap: "Label map: one picture for each photo, numbered objects",
  yolo: "YOLO: outlines as text, with the names of classes",
  labelme: "labelme: outlines as JSON, one file for each photo",
  geojson: "GeoJSON: outlines, georeferenced if the photo is",
  overlay: "Overlay: the photos with coloured masks, to look at",
};

/** @param {string} id */
export function open(id) {
  const dialog = byId(id);
  if (!dialog.open) dialog.showModal();
}

export function startDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    // A click beside a dialog closes it.
    dialog.addEventListener("pointerdown", (event) => {
      const { left, right, top, bottom } = dialog.getBoundingClientRect();
      const within = event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
      if (event.target === dialog && !within) dialog.close();
    });
  }
  byId("keys").replaceChildren(...KEYS.map(({ title, keys }) => make("section", {}, make("h3", {}, title),
    make("dl", {}, ...keys.map(({ shown, what }) => make("div", {},
      make("dt", {}, ...shown.flatMap((key, index) => [index ? " " : "", make("kbd", {}, key)])), make("dd", {}, what)))))));
  byId("export-format").replaceChildren(...app.session.export.map((name) => make("option", { value: name }, FORMATS[name] ?? name)));
  byId("export-run").onclick = runExport;
  byId("settings-form").onsubmit = (event) => (event.preventDefault(), runSettings());
  byId("settings-default").onclick = () => fillSettings({});
}

export function openExport() {
  byId("export-result").textContent = "";
  byId("export-download").hidden = true;
  const waiting = work.trouble.waiting;
  byId("export-note").textContent = `Photos with objects are exported, and those marked as done. Hidden objects are exported too, deleted ones are not.${
    waiting ? ` ${count(waiting, "change")} not saved yet will not be in it.` : ""}`;
  open("export-dialog");
}

async function runExport() {
  const [format, which] = [byId("export-format").value, byId("export-photos").value];
  const photos = which === "all" ? undefined : which === "this" ? [app.photoId].filter(Boolean)
    : app.photos.filter((photo) => photo.done).map((photo) => photo.id);
  const result = byId("export-result");
  if (photos && !photos.length) return result.textContent = "No photo is marked as done.";
  byId("export-run").disabled = true;
  result.textContent = "Exporting…";
  try {
    const done = await exportAs({ format, ...(photos && { photos }) });
    const failed = Object.entries(done.failed ?? {});
    result.replaceChildren(`${count(done.count, "photo")} exported, ${count(done.files.length, "file")}.`,
      ...(failed.length ? [` ${count(failed.length, "photo")} could not be exported:`,
        make("ul", {}, ...failed.slice(0, LISTED).map(([name, why]) => make("li", { dir: "auto" }, `${name}: ${why}`)),
          failed.length > LISTED ? make("li", {}, `and ${count(failed.length - LISTED, "more", "more")}`) : null)] : []));
    if (!done.count) return;
    const link = byId("export-download");
    link.href = done.download;
    link.hidden = false;
    link.click();
  } catch (error) {
    result.textContent = `Not exported: ${error.message}`;
  } finally {
    byId("export-run").disabled = false;
  }
}

export function openSettings() {
  fillSettings(settings());
  open("settings-dialog");
}

function fillSettings(values) {
  byId("settings").replaceChildren(...SETTINGS.map(({ name, label, kind, least, most, hint }) => make("label", {}, label,
    make("input", { type: "number", name, min: least, max: most, step: kind === "whole" ? 1 : "any",
      placeholder: hint, value: values[name] ?? "" }))));
}

function runSettings() {
  const inputs = [...byId("settings").querySelectorAll("input")];
  const chosen = Object.fromEntries(inputs.filter((input) => input.value !== "").map((input) => [input.name, input.valueAsNumber]));
  setting("everything", JSON.stringify(chosen));
  byId("settings-dialog").close();
  announce("Finding everything.");
  if (app.tool === "everything") startEverything();
  else useTool("everything");
}
