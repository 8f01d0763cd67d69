// Starts the page: asks the server what there is, connects buttons, and opens a photo.

import * as actions from "./actions.js";
import { session } from "./api.js";
import { startBar } from "./bar.js";
import { refreshClasses, startClasses } from "./classes.js";
import { startCrosshair } from "./crosshair.js";
import { open, openExport, startDialogs } from "./dialogs.js";
import { byId } from "./dom.js";
import { draft, timing } from "./draft.js";
import { redo, stack, undo } from "./history.js";
import { KEYS, startKeys } from "./keys.js";
import { complain } from "./messages.js";
import { startObjects } from "./objects.js";
import { linkedPhoto, loadPhotos, openNext, openPhoto, startPhotos, toggleDone, uploadFiles } from "./photos.js";
import { startPointer } from "./pointer.js";
import { untilAnswered } from "./retry.js";
import { app, emit, on } from "./state.js";
import { nameTab, setting } from "./storage.js";
import { nextTheme, startTheme } from "./theme.js";
import { shape } from "./tools.js";
import { drawn, startView } from "./view.js";
import { refresh, retry, takeUpChanges, work } from "./work.js";

/** Buttons with `data-action`: what they do, what they are called, and the key of the same name in the table of keys. */
const ACTIONS = {
  previousPhoto: [() => openNext(-1), "Previous photo (Page Up)"],
  nextPhoto: [() => openNext(1), "Next photo (Page Down)"],
  toggleDone: [toggleDone, "Mark the photo as done (G)"],
  zoomIn: [actions.zoomIn, "Zoom in (+)"],
  zoomOut: [actions.zoomOut, "Zoom out (−)"],
  actualSize: [actions.actualSize, "Actual size (Shift+F)"],
  fit: [actions.fit, "Fit to window (F)"],
  export: [openExport, "Export (Ctrl+E)"],
  theme: [nextTheme, "Light or dark (T)"],
  help: [() => open("help-dialog"), "Keyboard shortcuts (?)"],
  undo: [undo, "Undo (Ctrl+Z)"],
  redo: [redo, "Redo (Ctrl+Shift+Z)"],
  editClasses: [() => open("classes-dialog"), "Edit classes"],
  hideAll: [actions.hideAll, "Hide or show all (Shift+I)"],
  upload: [() => byId("files").click(), "Add photos"],
  retry: [retry, "Try to save again"],
};

function connectButtons() {
  for (const button of document.querySelectorAll("[data-action]")) {
    const [run, label] = ACTIONS[button.dataset.action];
    button.onclick = run;
    button.title = label;
    if (!button.textContent.trim()) button.setAttribute("aria-label", label);
  }
  const shortcuts = Object.fromEntries(KEYS[0].keys.map(({ shown, what }) => [what.split(",")[0], shown[0]]));
  const names = { select: "Select", point: "Point", box: "Box", lasso: "Lasso", brush: "Brush", pan: "Move the photo", everything: "Everything-mode" };
  for (const button of document.querySelectorAll("[data-tool]")) {
    const label = `${names[button.dataset.tool]} (${shortcuts[names[button.dataset.tool]]})`;
    button.onclick = () => actions.useTool(button.dataset.tool);
    button.title = label;
    button.setAttribute("aria-label", label);
  }
}

function render() {
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === app.tool));
    button.disabled = !app.photo;
  }
  byId("surface").dataset.pointer = app.tool;
  const { done, undone } = stack();
  byId("undo").disabled = !draft.active && !done.length;
  byId("redo").disabled = draft.at + 1 >= draft.states.length && !undone.length;
}

function renderSaving() {
  const { text, waiting } = work.trouble;
  const saving = byId("saving");
  saving.textContent = !app.photo && !waiting ? "" : !waiting ? "All saved" : text ? `${waiting} not saved` : "Saving…";
  saving.className = text && waiting ? "bad" : "";
  saving.title = text;
  byId("retry").hidden = !(text && waiting);
}

function renderPosition() {
  const at = app.cursor ?? shape.pointer?.map(Math.round);
  const inside = app.photo && at && at[0] >= 0 && at[1] >= 0 && at[0] < app.photo.width && at[1] < app.photo.height;
  byId("position").textContent = inside ? `${at[0]}, ${at[1]}` : app.photo ? `${app.photo.width} × ${app.photo.height}` : "";
}

/** How long a click took until its mask was on the screen; `performance` keeps each for whoever measures. */
async function measure() {
  if (!timing.answered) return;
  const { clicked: start, seconds } = timing.answered;
  timing.answered = null;
  await drawn();
  const end = performance.now();
  performance.measure("click", { start, end, detail: seconds });
  byId("answer-time").textContent = `${Math.round(end - start)} ms`;
}

function connectTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const show = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
  };
  for (const [index, tab] of tabs.entries()) {
    tab.onclick = () => {
      // On a phone the panel is a sheet, which a second press folds away.
      const folded = tab.getAttribute("aria-selected") === "true" && !document.body.classList.contains("folded");
      document.body.classList.toggle("folded", folded);
      show(tab);
    };
    tab.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      show(next);
      next.focus();
    };
  }
  document.body.classList.add("folded");
}

function connectFiles() {
  byId("files").onchange = (event) => {
    uploadFiles([...event.target.files]);
    event.target.value = "";
  };
  let depth = 0;
  const shown = (value) => (byId("drop").hidden = !value);
  const carries = (event) => app.session.uploads && [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => carries(event) && shown(++depth));
  addEventListener("dragleave", (event) => carries(event) && shown(--depth > 0));
  addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    shown(false);
    uploadFiles([...event.dataTransfer.files]);
  });
}

async function start() {
  startTheme();
  connectButtons();
  connectTabs();
  await nameTab();
  app.session = await untilAnswered(session, "start");
  app.classes = app.session.classes;
  app.preview = setting("preview") !== "off";
  byId("model").textContent = app.session.model.name;
  byId("model").title = `${app.session.model.name}, ${app.session.model.dtype}, samjax ${app.session.version}`;
  byId("folder").textContent = app.session.folder;
  byId("upload").hidden = !app.session.uploads;
  document.title = `${app.session.folder} – samjax`;
  startView();
  startPointer();
  startKeys();
  startCrosshair();
  startDialogs();
  startObjects();
  startClasses();
  startPhotos();
  startBar();
  connectFiles();
  on("tool photo draft history work", render);
  on("work photo", renderSaving);
  on("pointer cursor photo", renderPosition);
  on("draft", measure);
  on("photo", () => (byId("answer-time").textContent = ""));
  await untilAnswered(loadPhotos, "start");
  emit("tool photo classes work draft");
  await takeUpChanges();
  const asked = linkedPhoto();
  const first = app.photos.find((photo) => photo.id === asked) ?? app.photos.find((photo) => !photo.error && !photo.done) ?? app.photos[0];
  if (first) await openPhoto(first.id);
  // Other tabs and programs work on the same folder.
  addEventListener("focus", () => Promise.all([refresh(), loadPhotos(), refreshClasses()]).catch(() => {}));
  // After a click on a tool the keys are the photo's again: Enter accepts, and does not press the tool once more.
  // (Captured, because buttons are made anew while they are pressed.)
  addEventListener("click", (event) => event.detail && event.target.closest(".tools, .context, .classes")
    && byId("surface").focus({ preventScroll: true, focusVisible: false }), true);
  addEventListener("beforeunload", (event) => work.trouble.waiting && event.preventDefault());
}

start().catch((error) => {
  complain(`The page could not start: ${error.message}`, { topic: "start", action: { label: "Reload", run: () => location.reload() } });
  throw error;
});

export { app, draft, work };
