// The classes of the folder: chips to choose from, and a dialog to edit them.

import { useClass } from "./actions.js";
import { changeObjects, photo as getPhoto, putClasses, session } from "./api.js";
import { draft } from "./draft.js";
import { byId, iconButton, make, replaceChildren } from "./dom.js";
import { renameInHistory } from "./history.js";
import { complain } from "./messages.js";
import { faultOf, tidy } from "./names.js";
import { untilAnswered } from "./retry.js";
import { app, emit, on, PALETTE } from "./state.js";
import { findObject, load, tracked } from "./work.js";

/** @typedef {import("./state.js").ObjectClass} ObjectClass */

const TOPIC = "The classes are not saved";
let queue = Promise.resolve();
let waiting = 0; // changes that are not saved

export function startClasses() {
  on("classes draft selection work", renderChips);
  on("classes", renderRows);
  byId("class-add").onsubmit = (event) => {
    event.preventDefault();
    const input = byId("class-name");
    const name = tidy(input.value);
    input.setCustomValidity(faultOf(name));
    input.oninput = () => input.setCustomValidity("");
    if (!input.reportValidity()) return;
    if (name) addClass(name);
    byId("class-name").value = "";
  };
}

/** @param {string} name */
export function addClass(name) {
  if (app.classes.some((known) => known.name === name)) return complain(`There is a class ${name} already.`, { topic: "class" });
  const free = PALETTE.find((colour) => !app.classes.some((known) => known.colour === colour));
  change((classes) => [...classes.filter((known) => known.name !== name), { name, colour: free ?? PALETTE[classes.length % PALETTE.length] }]);
}

/**
 * Changes the classes here and on the server; if they have changed there, the change is made to the newest.
 * @param {(classes: ObjectClass[]) => ObjectClass[]} edit
 */
function change(edit) {
  app.classes = edit(app.classes);
  emit("classes");
  enqueue(async () => {
    try {
      for (;;) {
        const newest = await untilAnswered(session, TOPIC);
        try {
          const body = { revision: newest.classes_revision, classes: edit(newest.classes) };
          const answer = await untilAnswered(() => putClasses(body), TOPIC);
          if (waiting === 1) take(answer);
          return;
        } catch (error) {
          if (error.status !== 409) throw error;
        }
      }
    } catch (error) {
      complain(`${TOPIC}: ${error.message}`, { topic: TOPIC });
      take(await untilAnswered(session, "start")); // what is refused is not shown as if it were saved
    }
  });
}

/** Until it is done, the page says that something is not saved. @param {() => Promise<void>} run after what is under way */
function enqueue(run) {
  waiting += 1;
  queue = tracked(queue.then(run)).finally(() => (waiting -= 1)).catch((error) => complain(`${TOPIC}: ${error.message}`, { topic: TOPIC }));
}

/** A class by another name: its objects in all photos follow. */
async function renameClass(before, name) {
  if (!name || name === before) return emit("classes");
  if (faultOf(name)) {
    complain(`${faultOf(name)} The class ${before} keeps its name.`, { topic: "class" });
    return emit("classes");
  }
  if (app.classes.some((known) => known.name === name)) {
    complain(`There is a class ${name} already.`, { topic: "class" });
    return emit("classes");
  }
  change((classes) => classes.map((known) => (known.name === before ? { ...known, name } : known)));
  if (app.activeClass === before) app.activeClass = name;
  if (draft.class === before) draft.class = name;
  renameInHistory(before, name);
  const photos = app.photos.filter((photo) => photo.objects);
  enqueue(async () => {
    for (const { id } of photos) {
      await untilAnswered(() => renameIn(id, before, name), TOPIC).catch((error) => complain(
        `The class of objects of ${app.photos.find((photo) => photo.id === id)?.name} is not renamed: ${error.message}`));
    }
  });
}

async function renameIn(id, before, name) {
  for (;;) {
    const { work: newest } = await getPhoto(id);
    const changes = newest.objects.filter((object) => object.class === before).map((object) => ({ id: object.id, class: name }));
    if (!changes.length) return;
    try {
      await changeObjects(id, { revision: newest.revision, changes });
      await load(id);
      return;
    } catch (error) {
      if (error.status !== 409) throw error;
    }
  }
}

/** Takes over classes that another tab has changed. */
export async function refreshClasses() {
  const newest = await session();
  if (!waiting && newest.classes_revision !== app.session.classes_revision) take(newest);
}

function take({ classes, classes_revision }) {
  app.session.classes_revision = classes_revision;
  if (JSON.stringify(classes) === JSON.stringify(app.classes)) return; // the rows may be being typed into
  app.classes = classes;
  emit("classes");
}

function renderChips() {
  const object = app.selected && findObject(app.selected);
  const current = draft.active ? draft.class : object ? object.class : app.activeClass;
  const chip = (name, colour, key) => {
    const swatch = make("span", { class: "swatch" });
    if (colour) swatch.style.backgroundColor = colour;
    return make("button", { class: "chip", "aria-pressed": (current ?? null) === name, dataset: { key: `class ${name ?? ""}` },
      onclick: () => useClass(name), title: key === null ? name ?? "No class" : `${name ?? "No class"} (key ${key})` },
    swatch, make("span", { class: "ellipsis", dir: "auto" }, name ?? "No class"),
    key === null ? null : make("kbd", {}, String(key)));
  };
  replaceChildren(byId("classes"), [chip(null, null, 0),
    ...app.classes.map(({ name, colour }, index) => chip(name, colour, index < 9 ? index + 1 : null))]);
}

function renderRows() {
  const swap = (index, other) => change((classes) => {
    const moved = [...classes];
    if (moved[index] && moved[other]) [moved[index], moved[other]] = [moved[other], moved[index]];
    return moved;
  });
  replaceChildren(byId("class-rows"), app.classes.map(({ name, colour }, index) => {
    const picker = make("input", { type: "color", value: colour, "aria-label": `Colour of ${name}`, dataset: { key: `colour ${index}` },
      onchange: () => change((classes) => classes.map((known) => (known.name === name ? { ...known, colour: picker.value } : known))) });
    const input = make("input", { type: "text", dir: "auto", value: name, maxLength: 100, "aria-label": `Name of class ${index + 1}`,
      autocomplete: "off", dataset: { key: `name ${index}` }, onchange: () => renameClass(name, tidy(input.value)) });
    return make("li", {}, make("kbd", {}, index < 9 ? String(index + 1) : "–"), picker, input,
      iconButton("prev", `Move ${name} up`, () => swap(index, index - 1), { disabled: index === 0, dataset: { key: `up ${index}` }, class: "icon up" }),
      iconButton("next", `Move ${name} down`, () => swap(index, index + 1),
        { disabled: index === app.classes.length - 1, dataset: { key: `down ${index}` }, class: "icon up" }),
      iconButton("delete", `Remove ${name}`, () => change((classes) => classes.filter((known) => known.name !== name)),
        { dataset: { key: `remove ${index}` } }));
  }));
}
