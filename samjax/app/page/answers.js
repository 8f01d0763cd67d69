// The decoder's answers to steps, each asked for once.

import { predict } from "./api.js";
import { outlineDetail } from "./camera.js";
import { untilAnswered } from "./retry.js";
import { app, subjectOf } from "./state.js";

export const FAILED = "The mask could not be computed";

/** @type {Map<string, any[]>} */
const known = new Map();
/** @type {() => Promise<void>} resolves when the photo is encoded */
let encoded = async () => {};

export const waitForEncoding = (wait) => (encoded = wait);

/**
 * @param {import("./attempt.js").Attempt} of @param {import("./state.js").Step[]} steps @param {"polygons"|"rle"} [format]
 * @returns {Promise<{answers: any[], seconds: any}>} seconds: what took the server how long; null if it was known
 */
export async function ask({ photo, running: { signal } }, steps, format = "polygons") {
  const detail = format === "polygons" ? outlineDetail() : {}; // of what is shown; what is saved is exact
  const key = JSON.stringify([subjectOf(photo), format, detail, steps.map((step, index) => (
    index === steps.length - 1 ? { ...step, chosen: 0 } : step))]); // the answers do not depend on which is chosen
  let seconds = null;
  if (!known.has(key)) {
    await encoded().catch((error) => {
      if (photo === app.photo) throw error; // the server encodes a photo that was left when it is asked
    });
    const question = { photo: photo.id, steps, format, ...detail };
    const found = await untilAnswered(() => predict(question, signal), FAILED, signal);
    seconds = found.seconds;
    if (known.size > 200) known.delete(known.keys().next().value);
    known.set(key, found.objects[0].answers);
  }
  return { answers: known.get(key), seconds };
}
