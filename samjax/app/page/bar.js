// The bar above the photo: the options of the tool, and the mask in progress with what can be done to it.

import { accept, cancel, flipLabel, leaveEverything, toggleErase, togglePreview } from "./actions.js";
import { count, byId, icon, make, replaceChildren } from "./dom.js";
import { choose, draft, toggleThree } from "./draft.js";
import { acceptFound, everything, startEverything } from "./everything.js";
import { app, emit, on } from "./state.js";
import { openSettings } from "./dialogs.js";

const HINTS = {
  select: "Click on an object to select it.",
  point: "Click on an object; right-click or Shift+click marks the background.",
  box: "Drag a box around an object.",
  lasso: "Draw around an object.",
  brush: "Paint over an object.",
  pan: "Drag the photo. Space does so with any tool.",
};

export function startBar() {
  on("tool photo everything embedding draft", renderOptions);
  on("draft classes tool", renderDraft);
}

const button = (key, label, onclick, properties = {}, symbol = null) => make("button",
  { type: "button", class: "text", dataset: { key }, onclick, ...properties }, symbol ? icon(symbol) : null, make("span", {}, label));

const toggle = (key, label, pressed, onclick, symbol) => button(key, label, onclick, { "aria-pressed": pressed }, symbol);

function renderOptions() {
  const tool = app.tool;
  const parts = [];
  if (!app.photo) return replaceChildren(byId("options"), parts);
  if (byId("options").querySelector("input:active")) return; // a slider that is dragged stays where it is
  if (tool === "point") {
    parts.push(
      make("div", { class: "segments", role: "group", "aria-label": "Clicks mark" },
        toggle("on", "Object", app.label === 1, () => app.label || flipLabel(), "plus"),
        toggle("beside", "Background", app.label === 0, () => app.label && flipLabel(), "minus")),
      button("preview", "Preview", togglePreview, { title: "Preview below the pointer (W)", "aria-pressed": app.preview, class: "text hovers" }, "show"));
  }
  if (tool === "brush") {
    const shown = make("span", { class: "number" }, `${app.brush.radius} px`);
    const size = make("input", { type: "range", min: 1, max: 200, value: app.brush.radius, "aria-label": "Brush radius",
      dataset: { key: "radius" }, onchange: () => emit("tool"), oninput() {
        app.brush.radius = size.valueAsNumber;
        shown.textContent = `${app.brush.radius} px`;
        emit("shape");
      } });
    parts.push(
      make("div", { class: "segments", role: "group", "aria-label": "The brush" },
        toggle("add", "Add", !app.brush.erase, () => app.brush.erase && toggleErase(), "plus"),
        toggle("erase", "Erase", app.brush.erase, () => app.brush.erase || toggleErase(), "minus")),
      make("label", { class: "inline" }, "Size", size, shown));
  }
  if (tool === "everything") parts.push(...everythingParts());
  else if (!draft.active) parts.push(make("span", { class: "hint" }, HINTS[tool]));
  replaceChildren(byId("options"), parts);
}

function everythingParts() {
  const open = everything.masks.filter((mask) => !mask.taken);
  if (everything.running) {
    return [make("progress", { max: 1, value: everything.progress, "aria-label": "Finding everything" }),
      make("span", { class: "number" }, `${Math.round(everything.progress * 100)} %`),
      button("stop", "Stop", leaveEverything, {}, "cancel")];
  }
  return [make("span", { class: "facts" }, count(open.length, "mask"), make("span", { class: "roomy" }, " to choose from")),
    button("all", "Accept all", () => acceptFound(open), { disabled: !open.length }, "accept"),
    button("settings", "Settings", openSettings, { class: "text shrinks", title: "Settings" }, "gear"),
    button("again", "Find again", startEverything, { class: "text shrinks", title: "Find again" }, "everything"),
    button("leave", "Close", leaveEverything, { class: "text shrinks", title: "Leave everything-mode (E)" }, "cancel")];
}

function renderDraft() {
  const bar = byId("draft");
  if (!draft.active) replaceChildren(bar, []); // before it is hidden, so that the focus finds another place
  bar.hidden = !draft.active;
  if (!draft.active) return;
  const parts = [];
  const chosen = draft.steps.at(-1)?.chosen ?? 0;
  if (draft.answers && draft.answers.length > 1) {
    parts.push(make("div", { class: "segments masks", role: "group", "aria-label": "Which mask" },
      ...draft.answers.map((answer, index) => toggle(`mask ${index}`, answer.iou.toFixed(2), index === chosen, () => choose(index))
        )));
    for (const [index, element] of [...parts[0].children].entries()) {
      element.prepend(make("kbd", {}, String(index + 1)));
      element.setAttribute("aria-label", `Mask ${index + 1}, score ${draft.answers[index].iou.toFixed(2)}`);
    }
  } else if (draft.answers) {
    parts.push(make("span", { class: "score number", title: "The score that the model gives this mask" }, draft.answers[0].iou.toFixed(2)));
  } else if (draft.steps.length) parts.push(make("span", { class: "hint" }, app.embedding.state === "ready" ? "…" : "Encoding…"));
  parts.push(button("three", "3 masks", toggleThree, { title: "Three masks or one (M)", "aria-pressed": (draft.answers?.length ?? 1) > 1, class: "text shrinks" }, "masks"));
  if (draft.class) parts.push(make("span", { class: "hint ellipsis", dir: "auto" }, draft.class));
  parts.push(button("cancel", "Cancel", cancel, { title: "Cancel (Esc)", class: "text shrinks" }, "cancel"),
    button("accept", draft.target ? "Save" : "Accept", accept, { class: "text primary", disabled: !draft.answers && !(draft.target && !draft.steps.length) }, "accept"));
  replaceChildren(bar, parts);
}
