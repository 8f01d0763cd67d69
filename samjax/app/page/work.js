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
 * @typedef {Change & {refused?: string}} Waiting
 * @typedef {{id: string, version: string}} Photo
 */

export const work = {
  /** @type {import("./state.js").SegmentedObject[]} with what is on its way; deleted ones too */
  objects: [],
  done: false,
  /** @type {{text: string, waiting: number}} why changes wait */
  trouble: { text: "", waiting: 0 },
};

const TOPIC = "saving";
const REFUSED = "refused";
/** @type {Map<string, {revision: number, done: boolean, objects: any[]}>} what the server has, by photo */
const saved = new Map();
/** @type {Map<string, string>} */
const versions = new Map();
/** @type {Map<string, Waiting[]>} by the photo's subject; whatever is kept in the browser is in here too */
const outbox = new Map();
/** Subjects with changes of an earlier page, which are for a photo of these pixels alone. */
const recalled = new Set();
/** Subjects that the folder served here does not have: their changes wait for a page of theirs. */
const elsewhere = new Set();
const sending = new Set();
/** @type {Set<() => void>} end the waiting before the next try */
const wakes = new Set();
let why = "";
let tracking = 0;
let received = 0; // states of a photo's work that the server has told
const channel = new BroadcastChannel("samjax:work");
channel.onmessage = ({ data }) => data === app.photo?.id && refresh();

/** An id of the page's own makes it safe to send an object twice. */
export const newId = () => `p${Array.from(crypto.getRandomValues(new Uint8Array(11)), (byte) => "abcdefghijklmnopqrstuvwxyz"[byte % 26]).join("")}`;

/** What tells photos of one name apart. @param {{hash: string}} photo */
export const versionOf = (photo) => photo.hash.slice(0, 16);

const idOf = (subject) => subject.split(".")[0];

function take(photo, state) {
  received += 1;
  saved.set(photo, state);
}

/**
 * Takes what the server says of a photo.
 * @param {any} photo its answer to a question for one
 * @param {number} [asked] `received` when the question was sent
 */
export function adopt(photo, asked) {
  versions.set(photo.id, versionOf(photo));
  const before = saved.get(photo.id);
  // An answer that was overtaken by that to a change lacks the change. (One that was not, yet is of a lower revision,
  // is of a folder whose work began anew.)
  if (before && photo.work.revision < before.revision && asked !== received) return;
  take(photo.id, photo.work);
  show();
  for (const subject of outbox.keys()) if (idOf(subject) === photo.id) drain(subject);
}

/** The objects of a photo with what is on its way, by id, and whether it is done. */
function merged(photo) {
  const base = saved.get(photo?.id) ?? { objects: [], done: false };
  const objects = new Map(base.objects.map((object) => [object.id, object]));
  let { done } = base;
  for (const change of (photo && outbox.get(subjectOf(photo))) ?? []) {
    if (change.kind === "done") ({ done } = change);
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
  return { objects, done };
}

/** Brings `work` up to date with what is saved and what waits. */
export function show() {
  const { objects, done } = merged(app.photo);
  work.done = done;
  const numbers = new Map();
  work.objects = [...objects.values()].map((object) => {
    numbers.set(object.class, (numbers.get(object.class) ?? 0) + 1);
    return { ...object, number: numbers.get(object.class) };
  });
  const changes = [...outbox].flatMap(([subject, waiting]) => (elsewhere.has(subject) ? [] : waiting));
  const waiting = changes.length + tracking;
  work.trouble = { text: waiting ? why || (changes.find((change) => change.refused)?.refused ?? "") : "", waiting };
  emit("work");
}

/** @param {string} id @param {Photo} [photo] */
export const findObject = (id, photo = app.photo) =>
  photo?.id === app.photo?.id ? work.objects.find((object) => object.id === id) : merged(photo).objects.get(id);

/** Counts what is under way by other means than a change of objects as not saved yet. @template T @param {Promise<T>} promise */
export async function tracked(promise) {
  tracking += 1;
  show();
  try {
    return await promise;
  } finally {
    tracking -= 1;
    show();
  }
}

/** Puts a change on its way to the server's disk; the page shows it at once. @param {Change} change @param {Photo} [photo] */
export function submit(change, photo = app.photo) {
  if (change.kind === "change") {
    const changes = change.changes.filter(({ id }) => findObject(id, photo)); // what was discarded has nothing to undo
    if (!changes.length) return;
    change = { ...change, changes };
  }
  const subject = subjectOf(photo);
  outbox.set(subject, [...(outbox.get(subject) ?? []), { ...change }]);
  elsewhere.delete(subject);
  persist(subject);
  show();
  for (const wake of wakes) wake();
  drain(subject);
}

function persist(subject) {
  const waiting = outbox.get(subject) ?? [];
  keep("outbox", subject, waiting.length ? waiting : null);
}

function leaveOut(subject, changes) {
  outbox.set(subject, (outbox.get(subject) ?? []).filter((other) => !changes.includes(other)));
  persist(subject);
}

async function drain(subject) {
  if (sending.has(subject)) return;
  sending.add(subject);
  const photo = idOf(subject);
  try {
    for (let tries = 0, change; (change = outbox.get(subject)?.find((other) => !other.refused)); ) {
      try {
        if (recalled.has(subject) && !(await fits(subject))) return;
        await send(photo, change);
        leaveOut(subject, [change]);
        tries = 0;
        why = "";
        settle(TOPIC);
        show();
        channel.postMessage(photo);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.status === 409 && error.body.work && tries < 5) {
          take(photo, error.body.work);
          show();
          if (tries++ === 0) say("Another tab has changed this photo. Its newest state is shown, with your change on top.");
          continue;
        }
        if ([400, 404, 413, 415, 422].includes(error.status)) {
          refuse(subject, change, error);
          continue;
        }
        await waitAfter(error, tries++);
      }
    }
  } finally {
    sending.delete(subject);
    show();
  }
}

/** Whether changes that an earlier page has left are for the photo that is served here under its name. */
async function fits(subject) {
  const photo = idOf(subject);
  try {
    if (!saved.has(photo)) await load(photo);
  } catch (error) {
    if (!(error instanceof ApiError) || error.passing) throw error;
    if (error.status === 404) elsewhere.add(subject);
    else why = error.message; // the photo cannot be read now: they wait until it is opened, or for another try
    return false;
  }
  if (subject === subjectOf({ id: photo, version: versions.get(photo) })) recalled.delete(subject);
  else elsewhere.add(subject);
  return !recalled.has(subject);
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

/** Reads a photo's work anew. @param {string} photo */
export async function load(photo) {
  const asked = received;
  const answer = await getPhoto(photo);
  adopt(answer, asked);
  return answer.work;
}

function merge(photo, answer, more = {}) {
  const base = saved.get(photo);
  const objects = new Map(base.objects.map((object) => [object.id, object]));
  for (const object of answer.objects ?? []) objects.set(object.id, object);
  take(photo, { ...base, ...more, revision: answer.work.revision, objects: [...objects.values()] });
}

/** The server is away, busy, or its disk is full: the change waits, and the user is told. */
async function waitAfter(error, tries) {
  const seconds = pause(error, tries);
  why = error.message;
  show();
  if (tries > 0 || error.status !== 503) {
    complain(`Not saved yet: ${error.message.replace(/[^.!?]$/, "$&.")} Your work stays in this page, which tries again in ${seconds} s.`,
      { topic: TOPIC, action: { label: "Try now", run: retry } });
  }
  const waiting = sleep(seconds);
  wakes.add(waiting.wake);
  await waiting.done;
  wakes.delete(waiting.wake);
}

function refuse(subject, change, error) {
  change.refused = error.message;
  persist(subject);
  const refused = [...outbox].flatMap(([subject, waiting]) =>
    (elsewhere.has(subject) ? [] : waiting.filter((other) => other.refused).map((other) => ({ subject, change: other }))));
  const discard = () => {
    for (const { subject, change } of refused) leaveOut(subject, [change]);
    show();
  };
  complain(refused.length > 1 ? `${refused.length} changes are not saved. The last: ${error.message}` : `Not saved: ${error.message}`,
    { topic: REFUSED, action: { label: refused.length > 1 ? "Discard all" : "Discard it", run: discard } });
  show();
}

/** Sends again what waits, also what was refused. */
export function retry() {
  settle(REFUSED);
  why = "";
  for (const [subject, waiting] of outbox) {
    for (const change of waiting) delete change.refused;
    drain(subject);
  }
  for (const wake of wakes) wake();
  show();
}

/** Takes over the newest state, e.g. after another tab has changed it. */
export async function refresh() {
  const photo = app.photo?.id;
  if (photo) await load(photo).catch(() => {});
}

/** Sends what was not saved when the page was closed. It is in the outbox before anything can fail or be added. */
export async function takeUpChanges() {
  for (const [subject, waiting] of await recallAll("outbox")) {
    for (const change of waiting) delete change.refused;
    outbox.set(subject, [...(outbox.get(subject) ?? []), ...waiting]);
    recalled.add(subject);
    persist(subject);
  }
  show();
  for (const subject of recalled) drain(subject);
}
