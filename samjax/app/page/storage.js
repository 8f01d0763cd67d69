// What a tab must not lose is kept in localStorage under the tab's own name, so that two tabs on one photo do not
// overwrite each other. What a closed tab has left is taken over by the next one.

import { complain, settle } from "./messages.js";

const PREFIX = "samjax:";
const TOPIC = "storage";
let tab = "";
/** Keys whose newest value is not in the storage. */
const unkept = new Set();

/** Names this tab: as before a reload, but not as a tab of which this one is a copy. */
export async function nameTab() {
  const before = sessionStorage.getItem(`${PREFIX}tab`);
  for (const name of [before, crypto.getRandomValues(new Uint32Array(2)).join("-")]) {
    if (name && await hold(name)) {
      tab = name;
      sessionStorage.setItem(`${PREFIX}tab`, tab);
      return;
    }
  }
}

/** A lock lives as long as its tab: that is how others know. Without locks (plain http from afar) every name is free. */
function hold(name) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    navigator.locks.request(`${PREFIX}${name}`, { ifAvailable: true }, (lock) => {
      resolve(Boolean(lock));
      return lock ? new Promise(() => {}) : undefined;
    });
  });
}

async function living() {
  const held = navigator.locks ? (await navigator.locks.query()).held : [];
  return new Set((held ?? []).map((lock) => lock.name?.slice(PREFIX.length)));
}

/** @param {string} kind @param {string} subject e.g. a photo's id @param {any} value null to forget */
export function keep(kind, subject, value) {
  const key = `${PREFIX}${kind}:${subject}:${tab}`;
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
    if (unkept.delete(key) && !unkept.size) settle(TOPIC);
  } catch {
    // Full, or forbidden: the page works without.
    if (!unkept.size) complain("This browser's storage is full or switched off: a reload would lose what is not saved yet.", { topic: TOPIC });
    unkept.add(key);
  }
}

/** What was kept by this tab, or by one that is closed, which then gives it up. */
export async function recall(kind, subject) {
  const start = `${PREFIX}${kind}:${subject}:`;
  const own = read(start + tab);
  if (own !== null) return own;
  const alive = await living();
  for (const key of keys().filter((key) => key.startsWith(start) && !alive.has(key.slice(start.length)))) {
    const value = read(key);
    localStorage.removeItem(key);
    if (value !== null) {
      keep(kind, subject, value);
      return value;
    }
  }
  return null;
}

/** Everything of a kind that closed tabs and this one have left, as [subject, value]; now this tab's. */
export async function recallAll(kind) {
  const start = `${PREFIX}${kind}:`;
  const found = [];
  const alive = await living();
  for (const key of keys().filter((key) => key.startsWith(start))) {
    const cut = key.lastIndexOf(":");
    const [subject, owner] = [key.slice(start.length, cut), key.slice(cut + 1)];
    if (owner !== tab && alive.has(owner)) continue;
    const value = read(key);
    if (value !== null) found.push([subject, value]);
    if (owner !== tab) localStorage.removeItem(key);
  }
  return found;
}

/** A choice of the user that all tabs share. */
export function setting(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(`${PREFIX}setting:${name}`);
    localStorage.setItem(`${PREFIX}setting:${name}`, value);
  } catch {
    return null;
  }
  return value;
}

const keys = () => Array.from({ length: localStorage.length }, (_, index) => localStorage.key(index) ?? "");

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}
