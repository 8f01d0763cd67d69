// Requests to the server. Whatever goes wrong is an ApiError with the server's own message.

export const client = crypto.getRandomValues(new Uint32Array(3)).join("-");

export class ApiError extends Error {
  /** @param {number} status 0 where no answer came @param {string} message @param {any} [body] @param {number} [after] seconds */
  constructor(status, message, body = {}, after = 0) {
    super(message);
    this.status = status;
    this.body = body;
    this.after = after;
  }

  /** Whether the same request may succeed later, as it is. */
  get passing() {
    return [0, 502, 503, 504, 507].includes(this.status);
  }
}

export const GONE = "The server does not answer. Is `samjax app` still running?";

/**
 * @param {string} method @param {string} path
 * @param {{json?: any, body?: BodyInit, accept?: string, signal?: AbortSignal}} [options]
 */
export async function send(method, path, { json, body, accept, signal } = {}) {
  const headers = { "X-Samjax-Client": client };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  else if (body !== undefined) headers["Content-Type"] = "application/octet-stream";
  if (accept) headers.Accept = accept;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: json === undefined ? body : JSON.stringify(json) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, GONE);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    body = { error: text.slice(0, 300) };
  }
  const after = Number(response.headers.get("Retry-After")) || 0;
  return new ApiError(response.status, String(body.error || `The server answered ${response.status}.`), body, after);
}

async function json(method, path, options) {
  const response = await send(method, path, options);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, GONE); // the server went away within its answer
  }
}

const photoPath = (id) => `/api/photos/${encodeURIComponent(id)}`;

export const session = () => json("GET", "/api/session");
export const photos = () => json("GET", "/api/photos");
export const photo = (id, signal) => json("GET", photoPath(id), { signal });
export const object = (id, object) => json("GET", `${photoPath(id)}/objects/${encodeURIComponent(object)}`);
export const startEmbedding = (photo, signal) => json("POST", "/segment/embed", { json: { photo }, signal });
export const embedding = (photo, signal) => json("GET", `/segment/embed/${encodeURIComponent(photo)}`, { signal });
export const predict = (question, signal) => json("POST", "/segment/predict", { json: question, signal });
export const addObjects = (id, body) => json("POST", `${photoPath(id)}/objects`, { json: body });
export const changeObjects = (id, body) => json("PATCH", `${photoPath(id)}/objects`, { json: body });
export const changePhoto = (id, body) => json("PATCH", photoPath(id), { json: body });
export const putClasses = (body) => json("PUT", "/api/classes", { json: body });
export const exportAs = (body) => json("POST", "/api/export", { json: body });
export const tilePath = (id, level, column, row, version) =>
  `${photoPath(id)}/tiles/${level}/${column}/${row}.jpg?v=${encodeURIComponent(version)}`;
export const thumbnailPath = (id) => `${photoPath(id)}/thumbnail.jpg`;

/**
 * Everything in a photo; `onLine` is given each line of the answer as it comes.
 * @param {any} question @param {(line: any) => void} onLine @param {AbortSignal} signal
 */
export async function everything(question, onLine, signal) {
  const response = await send("POST", "/segment/everything", { json: question, accept: "application/x-ndjson", signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += value ?? "";
    const lines = rest.split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines.filter(Boolean)) onLine(JSON.parse(line));
    if (done) return;
  }
}

/**
 * Sends a file. XMLHttpRequest, because fetch does not tell how much of a body has gone.
 * @param {File} file @param {(share: number) => void} onProgress @returns {Promise<any>}
 */
export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/upload?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("X-Samjax-Client", client);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, GONE));
    request.onload = () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        body = { error: request.responseText.slice(0, 300) };
      }
      if (request.status < 300) resolve(body);
      else reject(new ApiError(request.status, String(body.error || `The server answered ${request.status}.`), body));
    };
    request.send(file);
  });
}
