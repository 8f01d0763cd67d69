// An object in progress: its steps so far, with the answers to choose from.

import { app, stamp } from "./state.js";

/** @typedef {import("./state.js").Step} Step */

export class Attempt {
  /** @param {Partial<Attempt>} [before] what `taken` gave */
  constructor(before = {}) {
    /** @type {import("./state.js").Photo|null} */
    this.photo = app.photo;
    /** @type {string|null} the object that is corrected */
    this.target = before.target ?? null;
    /** @type {string|null} */
    this.class = before.class === undefined ? app.activeClass : before.class;
    /** @type {any} run lengths of a target that has no steps of its own */
    this.given = before.given ?? null;
    /** @type {Step[][]} after each click; the first is what it began with */
    this.states = before.states ?? [[]];
    /** @type {number[]} when each of the states came about */
    this.stamps = before.stamps ?? this.states.map(stamp);
    this.at = before.at ?? 0;
    /** @type {any[]|null} of the last step; null until they are there */
    this.answers = null;
    /** @type {number[][]} points whose step waits for the answer before it */
    this.waiting = [];
    /** Steps, also of boxes and drawings, that are not answered. */
    this.pending = 0;
    this.queue = Promise.resolve();
    this.running = new AbortController();
    /** Why there is no answer. */
    this.failure = "";
    /** When it was accepted, to be saved as soon as it is answered; else 0. */
    this.accepted = 0;
  }

  get steps() {
    return this.states[this.at];
  }

  get active() {
    return this.steps.length > 0 || this.target !== null || this.pending > 0;
  }
}
