// Asking again when the server is away or busy.

import { ApiError } from "./api.js";
import { complain, settle } from "./messages.js";

const LONGEST = 20; // seconds between two tries

/** Seconds to wait before the next try, after `tries` that failed. @param {ApiError} error @param {number} tries */
export const pause = (error, tries) => error.after || Math.min(LONGEST, 2 ** tries);

/**
 * Waits; `wake` of what is returned ends it early.
 * @param {number} seconds @param {AbortSignal} [signal]
 */
export function sleep(seconds, signal) {
  let wake = () => {};
  const done = new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    wake = () => (clearTimeout(timer), resolve(undefined));
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
  return { done, wake };
}

/**
 * The answer to `ask`, which is asked again while the server is away or busy.
 * @template T
 * @param {() => Promise<T>} ask @param {string} topic of its messages @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
export async function untilAnswered(ask, topic, signal) {
  for (let tries = 0; ; tries++) {
    try {
      const answer = await ask();
      settle(topic);
      return answer;
    } catch (error) {
      if (signal?.aborted || !(error instanceof ApiError) || !error.passing) {
        settle(topic);
        throw error;
      }
      const seconds = pause(error, tries);
      const { done, wake } = sleep(seconds, signal);
      // A short "busy" is nothing to read about.
      if (tries > 0 || error.status !== 503) {
        complain(`${error.message.replace(/[^.!?]$/, "$&.")} Retrying in ${seconds} s.`, { topic, action: { label: "Retry now", run: wake } });
      }
      await done;
    }
  }
}
