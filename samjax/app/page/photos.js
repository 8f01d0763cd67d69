// The photos of the folder: which is shown, how far each is, and how new ones come.

import * as api from "./api.js";
import { fit } from "./camera.js";
import { refreshClasses } from "./classes.js";
import { count, byId, make } from "./dom.js";
import { leave, takeUp, waitForEncoding } from "./draft.js";
import { stopEverything } from "./everything.js";
import { announce, complain, say, settle } from "./messages.js";
import { clearHover } from "./preview.js";
import { sleep, untilAnswered } from "./retry.js";
import { app, emit, on } from "./state.js";
import { abandonShape } from "./tools.js";
import { showPhoto } from "./view.js";
import { adopt, show, submit, versionOf, work } from "./work.js";

let opening = new AbortController();
/** @type {Map<string, HTMLElement>} */
const rows = new Map();
/** @type {Set<string>} photos whose notes have been shown */
const noted = new Set();

export function startPhotos() {
  on("photos photo work", renderPhotos);
  on("embedding photo", renderEncoding);
  window.addEventListener("hashchange", () => {
    const id = linkedPhoto();
    if (id && id !== app.photoId) openPhoto(id);
  });
}

/** The id in the address; none if that is not one of the page's. */
export function linkedPhoto() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

export async function loadPhotos() {
  app.photos = (await api.photos()).photos;
  emit("photos");
}

/** @param {string} id */
export async function openPhoto(id) {
  opening.abort(new DOMException("another photo", "AbortError"));
  const { signal } = (opening = new AbortController());
  clearHover();
  abandonShape();
  stopEverything();
  settle("notes");
  if (app.tool === "everything") app.tool = "point";
  Object.assign(app, { photo: null, photoId: id, photoError: null, selected: null, hovered: null, cursor: null,
    embedding: { state: "none", share: 0 } });
  leave();
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  showPhoto();
  emit("photo tool selection embedding");
  show();
  try {
    const photo = await untilAnswered(() => api.photo(id, signal), "The photo is not loaded", signal);
    if (signal.aborted) return;
    app.photo = { ...photo, version: versionOf(photo) };
    const listed = app.photos.find((other) => other.id === id);
    if (listed) listed.error = null; // it may have been repaired
    adopt(photo);
    show();
    fit();
    showPhoto();
    emit("photo selection");
    encode(id, signal);
    tellNotes(photo);
    // Imported annotations bring classes with them.
    const names = new Set(app.classes.map((known) => known.name));
    if (work.objects.some((object) => object.class && !names.has(object.class))) refreshClasses().catch(() => {});
    await takeUp();
    announce(`Photo ${indexOf(id) + 1} of ${app.photos.length}: ${photo.name}, ${photo.width} by ${photo.height} pixels.`);
  } catch (error) {
    if (signal.aborted) return;
    app.photoError = error.message;
    const listed = app.photos.find((photo) => photo.id === id);
    if (listed && error.status === 422) listed.error = error.message;
    emit("photo photos");
    announce(`This photo cannot be shown: ${error.message}`);
  }
}

/** Shows what a person should know of a photo's work, once: annotations that were not imported, a change that was lost. */
function tellNotes({ id, work: { notes = [] } }) {
  if (!notes.length || noted.has(id)) return;
  noted.add(id);
  say(notes.join(" "), { topic: "notes", stays: true });
}

/** Has the photo encoded, once; clicks wait for it. */
function encode(photo, signal) {
  const done = (async () => {
    let state = await untilAnswered(() => api.startEmbedding(photo, signal), "encoding", signal);
    for (let wait = 0.1; !["ready", "failed"].includes(state.state); wait = Math.min(1, wait * 1.3)) {
      report(state);
      await sleep(wait, signal).done;
      state = await untilAnswered(() => api.embedding(photo, signal), "encoding", signal);
      // The server was started anew in between, and has forgotten.
      if (state.state === "absent") state = await api.startEmbedding(photo, signal);
    }
    report(state);
    if (state.state === "failed") throw new api.ApiError(500, `The photo could not be encoded: ${state.error}`);
    const listed = app.photos.find((other) => other.id === photo);
    if (listed) listed.embedded = true;
    emit("photos");
  })();
  waitForEncoding(() => done);
  done.catch((error) => {
    if (signal.aborted || error.name === "AbortError") return;
    app.embedding = { state: "failed", share: 0 };
    emit("embedding");
    complain(error.message, { topic: "encoding", action: { label: "Try again", run: () => encode(photo, signal) } });
  });
}

function report({ state, position, elapsed, expected }) {
  const share = state === "ready" ? 1 : expected ? Math.min(0.97, (elapsed ?? 0) / expected) : 0;
  app.embedding = { state, share, position };
  emit("embedding");
}

function renderEncoding() {
  const { state, share, position } = app.embedding;
  const going = state === "queued" || state === "encoding";
  byId("encoding-progress").hidden = !going;
  byId("encoding-progress").value = share;
  byId("encoding-text").textContent = !app.photo ? "" : state === "ready" ? "Ready"
    : state === "queued" ? `Waiting${position ? ` behind ${position}` : ""}` : state === "encoding" ? "Encoding the photo"
    : state === "failed" ? "Not encoded" : "";
}

const indexOf = (id) => app.photos.findIndex((photo) => photo.id === id);

/** @param {number} direction */
export function openNext(direction) {
  const at = indexOf(app.photoId);
  const next = app.photos[at + direction];
  if (next) openPhoto(next.id);
  else if (app.photos.length) say(direction > 0 ? "This is the last photo." : "This is the first photo.", { topic: "photo" });
}

export function toggleDone() {
  if (!app.photo) return;
  submit({ kind: "done", done: !work.done });
  announce(work.done ? "The photo is done." : "The photo is not done yet.");
}

function renderPhotos() {
  const listed = app.photos.find((photo) => photo.id === app.photoId);
  if (listed && app.photo) {
    listed.objects = work.objects.filter((object) => !object.deleted).length;
    listed.done = work.done;
  }
  const at = indexOf(app.photoId);
  byId("photo-name").textContent = listed ? listed.name : app.photos.length ? "" : "No photo";
  byId("photo-name").title = listed?.name ?? "";
  byId("previous").disabled = at <= 0;
  byId("next").disabled = at < 0 || at >= app.photos.length - 1;
  byId("done").setAttribute("aria-pressed", String(Boolean(app.photo) && work.done));
  byId("done").disabled = !app.photo;
  const done = app.photos.filter((photo) => photo.done).length;
  byId("photo-count").textContent = at < 0 ? String(app.photos.length) : `${at + 1}/${app.photos.length}`;
  byId("folder-progress").value = app.photos.length ? done / app.photos.length : 0;
  const objects = app.photos.reduce((sum, photo) => sum + (photo.objects ?? 0), 0);
  byId("folder-summary").textContent = `${done} of ${app.photos.length} done · ${count(objects, "object")}`;
  renderRows();
  renderNotice(listed);
}

/** Rows are made once and then changed in place: a folder may have thousands. */
function renderRows() {
  const list = byId("photos");
  const ids = new Set(app.photos.map((photo) => photo.id));
  for (const [id, row] of rows) if (!ids.has(id)) [row.remove(), rows.delete(id)];
  app.photos.forEach((photo, index) => {
    let row = rows.get(photo.id);
    if (!row) rows.set(photo.id, row = makeRow(photo));
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
    const state = photo.error ? "cannot be read" : [photo.done ? "done" : null,
      photo.objects ? count(photo.objects, "object") : "no objects"].filter(Boolean).join(", ");
    const key = `${state} ${photo.id === app.photoId} ${photo.embedded}`;
    if (row.dataset.state === key) return;
    row.dataset.state = key;
    row.classList.toggle("done", Boolean(photo.done));
    row.classList.toggle("failed", Boolean(photo.error));
    const button = row.querySelector("button");
    if (row.dataset.failed !== String(Boolean(photo.error))) {
      row.dataset.failed = String(Boolean(photo.error));
      row.querySelector(".thumbnail").replaceWith(thumbnail(photo));
    }
    if (photo.id === app.photoId) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    button.title = photo.error ?? photo.name;
    row.querySelector(".facts").textContent = state;
    if (photo.id === app.photoId) row.scrollIntoView({ block: "nearest" });
  });
}

function pick(id) {
  document.body.classList.add("folded"); // the sheet of a phone
  openPhoto(id);
}

function makeRow(photo) {
  return make("li", { class: "photo" }, make("button", { onclick: () => pick(photo.id) }, make("span", { class: "thumbnail" }),
    make("span", { class: "words" }, make("span", { class: "ellipsis", dir: "auto" }, photo.name), make("span", { class: "facts" }))));
}

function thumbnail(photo) {
  const none = make("span", { class: "thumbnail" });
  if (photo.error) return none;
  const picture = make("img", { class: "thumbnail", alt: "", loading: "lazy", decoding: "async", src: api.thumbnailPath(photo.id),
    onerror: () => picture.replaceWith(none) });
  return picture;
}

function renderNotice(listed) {
  const notice = byId("notice");
  notice.hidden = Boolean(app.photo) || (Boolean(app.photoId) && !app.photoError);
  if (app.photoError) {
    notice.replaceChildren(make("h2", {}, "This photo cannot be shown"), make("p", {}, app.photoError),
      make("p", {}, "The other photos can be worked on. Replace or repair the file, then try again."),
      make("div", { class: "buttons" },
        make("button", { class: "button", onclick: () => openPhoto(app.photoId) }, "Try again"),
        make("button", { class: "button", onclick: () => openNext(1), disabled: indexOf(app.photoId) + 1 >= app.photos.length }, "Next photo")));
  } else if (!listed) {
    notice.replaceChildren(make("h2", {}, "No photos yet"),
      make("p", {}, "Drop photos here, or add them with a button."),
      make("div", { class: "buttons" }, make("button", { class: "button primary", onclick: () => byId("files").click() }, "Add photos")));
  }
}

const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: bytes < 1e7 ? 1 : 0 })} MB`;

/** Sends files, one after the other, and shows the first. @param {Iterable<File>} files */
export async function uploadFiles(files) {
  let first = null;
  for (const file of files) {
    const topic = `upload ${file.name}`;
    const limit = app.session.limits?.upload_bytes;
    if (limit && file.size > limit) {
      complain(`${file.name} is too large (${megabytes(file.size)}; the limit is ${megabytes(limit)}).`, { topic });
      continue;
    }
    say(`Adding ${file.name}…`, { topic });
    try {
      const { photo } = await api.upload(file, (share) => {
        byId("encoding-text").textContent = `Adding ${file.name}, ${Math.round(share * 100)} %`;
      });
      settle(topic);
      first ??= photo.id;
    } catch (error) {
      complain(`${file.name} is not added: ${error.message}`, { topic, action: error.passing ? { label: "Try again", run: () => uploadFiles([file]) } : undefined });
    }
    renderEncoding();
  }
  await loadPhotos().catch((error) => complain(error.message));
  if (first) {
    say("Photos added.", { topic: "upload" });
    openPhoto(first);
  }
}
