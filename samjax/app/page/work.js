// The objects of the photo, as they are on the server's disk, with the changes that are on their way there. A change
// that cannot be saved stays here, is said to be unsaved, and is sent again.

import { addObjects, ApiError, changeObjects, changePhoto, photo as getPhoto } from "./api.js";
import { complain, say, settle } from "./messages.js";
import { pause, sleep } from "./retry.js";
import { app, emit, subjectOf } from "./state.js";
import { keep, recallAll } from "./storage.js";

/**
 * @typedef {{kind: "add", objects: {body: any, shown: any}[]} | {kind: "change", changes: any[]} |
 *   {kind: "done", done: boolean}} Change
 * @typedef {Change & {refused?: string, uncertain?: boolean}} Waiting
 */

export const work = {
  /** @type {import("./state.js").SegmentedObject[]} with what is on its way; deleted ones too */
  objects: [],
  done: false,
  /** @type {{text: string, waiting: number}} why changes wait */
  trouble: { text: "", waiting: 0 },
};

const TOPIC = "saving";
/** @type {Map<string, {revision: number, done: boolean, objects: any[]}>} what the server has, by photo */
const saved = new Map();
/** @type {Map<string, string>} */
const versions = new Map();
/** @type {Map<string, Waiting[]>} */
const outbox = new Map();
const sending = new Set();
let wake = () => {};
const channel = new BroadcastChannel("samjax:work");
channel.onmessage = ({ data }) => data === app.photo?.id && refresh();

/** An id of the page's own makes it safe to send an object twice. */
export const newId = () => `p${Array.from(crypto.getRandomValues(new Uint8Array(11)), (byte) => "abcdefghijklmnopqrstuvwxyz"[byte % 26]).join("")}`;

/** What tells photos of one name apart. @param {{hash: string}} photo */
export const versionOf = (photo) => photo.hash.slice(0, 16);

/** Takes what the server says of a photo. @param {any} photo its answer to a question for one */
export function adopt(photo) {
  versions.set(photo.id, versionOf(photo));
  const before = saved.get(photo.id);
  // While changes are being sent, an answer may be older than the last of them.
  if (before && sending.has(photo.id) && photo.work.revision < before.revision) return;
  saved.set(photo.id, photo.work);
  show();
}

/** Brings `work` up to date with what is saved and what waits. */
export function show() {
  const photo = app.photo?.id;
  const base = saved.get(photo) ?? { objects: [], done: false };
  const objects = new Map(base.objects.map((object) => [object.id, object]));
  work.done = base.done;
  for (const change of outbox.get(photo) ?? []) {
    if (change.kind === "done") work.done = change.done;
    if (change.kind === "add") {
      for (const { body, shown } of change.objects) {
        if (objects.has(body.id)) continue;
        objects.set(body.id, { name: "", class: null, colour: null, hidden: false, deleted: false, score: null, clicks: 0,
          area: 0, box: [0, 0, 0, 0], polygons: [], source: "prompts", ...shown, ...body, unsaved: true });
      }
    }
    if (change.kind === "change") {
      for (const { shown, ...fields } of change.changes) {
        const object = objects.get(fields.id);
        if (object) objects.set(fields.id, { ...object, ...fields, ...shown, unsaved: true });
      }
    }
  }
  const numbers = new Map();
  work.objects = [...objects.values()].map((object) => {
    numbers.set(object.class, (numbers.get(object.class) ?? 0) + 1);
    return { ...object, number: numbers.get(object.class) };
  });
  const waiting = [...outbox.values()].flat().length;
  work.trouble = { text: waiting ? work.trouble.text : "", waiting };
  emit("work");
}

export const findObject = (id) => work.objects.find((object) => object.id === id);

/** Puts a change on its way to the server's disk; the page shows it at once. @param {Change} change */
export function submit(change, photo = app.photo.id) {
  if (change.kind === "change") {
    change.changes = change.changes.filter(({ id }) => findObject(id)); // what was discarded has nothing to undo
    if (!change.changes.length) return;
  }
  outbox.set(photo, [...(outbox.get(photo) ?? []), change]);
  persist(photo);
  show();
  wake();
  drain(photo);
}

function persist(photo) {
  const waiting = outbox.get(photo) ?? [];
  keep("outbox", subjectOf({ id: photo, version: versions.get(photo) }), waiting.length ? waiting : null);
}

async function drain(photo) {
  if (sending.has(photo)) return;
  sending.add(photo);
  try {
    for (let tries = 0, change; (change = outbox.get(photo)?.find((other) => !other.refused)); ) {
      try {
        await send(photo, change);
        outbox.set(photo, outbox.get(photo).filter((other) => other !== change));
        persist(photo);
        tries = 0;
        work.trouble.text = "";
        settle(TOPIC);
        show();
        channel.postMessage(photo);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.status === 409 && error.body.work && tries < 5) {
          saved.set(photo, error.body.work);
          show();
          if (tries++ === 0) say("Another tab has changed this photo. Its newest state is shown, with your change on top.");
          continue;
        }
        if ([400, 404, 413, 415, 422].includes(error.status)) {
          refuse(photo, change, error);
          continue;
        }
        await waitAfter(error, tries++, photo);
      }
    }
  } finally {
    sending.delete(photo);
    show();
  }
}

async function send(photo, change) {
  const revision = saved.get(photo)?.revision ?? (await load(photo)).revision;
  if (change.kind === "done") return merge(photo, await changePhoto(photo, { revision, done: change.done }), { done: change.done });
  if (change.kind === "add") {
    return merge(photo, await addObjects(photo, { revision, objects: change.objects.map(({ body }) => body) }));
  }
  const changes = change.changes.map(({ shown, ...fields }) => fields);
  return merge(photo, await changeObjects(photo, { revision, changes }));
}

async function load(photo) {
  const answer = await getPhoto(photo);
  adopt(answer);
  return answer.work;
}

function merge(photo, answer, more = {}) {
  const base = saved.get(photo);
  const objects = new Map(base.objects.map((object) => [object.id, object]));
  for (const object of answer.objects ?? []) objects.set(object.id, object);
  saved.set(photo, { ...base, ...more, revision: answer.work.revision, objects: [...objects.values()] });
}

/** The server is away, busy, or its disk is full: the change waits, and the user is told. */
async function waitAfter(error, tries, photo) {
  const seconds = pause(error, tries);
  work.trouble.text = error.message;
  show();
  if (tries > 0 || error.status !== 503) {
    complain(`Not saved yet: ${error.message.replace(/[^.!?]$/, "$&.")} Your work stays in this page, which tries again in ${seconds} s.`,
      { topic: TOPIC, action: { label: "Try now", run: retry } });
  }
  const waiting = sleep(seconds);
  wake = waiting.wake;
  await waiting.done;
}

function refuse(photo, change, error) {
  change.refused = error.message;
  persist(photo);
  work.trouble.text = error.message;
  complain(`Not saved: ${error.message}`, { topic: TOPIC, action: { label: "Discard it", run: () => discard(photo, change) } });
  show();
}

function discard(photo, change) {
  outbox.set(photo, (outbox.get(photo) ?? []).filter((other) => other !== change));
  persist(photo);
  show();
}

/** Sends again what waits, also what was refused. */
export function retry() {
  for (const [photo, waiting] of outbox) {
    for (const change of waiting) delete change.refused;
    drain(photo);
  }
  wake();
}

/** Takes over the newest state, e.g. after another tab has changed it. */
export async function refresh() {
  const photo = app.photo?.id;
  if (photo) await load(photo).catch(() => {});
}

/** Sends what was not saved when the page was closed. */
export async function takeUpChanges() {
  for (const [subject, waiting] of await recallAll("outbox")) {
    const [photo, version] = subject.split(".");
    keep("outbox", subject, waiting);
    try {
      await load(photo);
    } catch {
      continue; // a photo of another folder, or one that cannot be read now: it waits for a page that can
    }
    if (versions.get(photo) !== version) continue;
    outbox.set(photo, [...waiting, ...(outbox.get(photo) ?? [])]);
    drain(photo);
  }
  show();
}
