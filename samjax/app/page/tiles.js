// The photo as tiles of the level that the zoom needs, and only where it is seen: a photo of any size stays fluid.

import { ApiError, send, tilePath } from "./api.js";
import { camera } from "./camera.js";

const AT_ONCE = 6; // requests
const KEPT = 128; // tiles, a megabyte each

/** A photo's tiles: level 0 has its own pixels, each level after it half as many to a side. */
export class Tiles {
  /** @param {import("./state.js").Photo} photo @param {number} side @param {() => void} onArrival */
  constructor(photo, side, onArrival) {
    this.photo = photo;
    this.side = side;
    this.onArrival = onArrival;
    /** @type {Map<string, ImageBitmap>} the least recently drawn first */
    this.ready = new Map();
    /** @type {Map<string, AbortController>} */
    this.coming = new Map();
    /** @type {Map<string, number>} when a tile that failed may be asked for again */
    this.failed = new Map();
    this.wanted = [];
  }

  /** Draws what is seen and asks for what is missing. @param {CanvasRenderingContext2D} context in device pixels */
  draw(context, density) {
    const last = this.photo.levels - 1;
    const scale = camera.scale * density;
    const level = Math.min(last, Math.max(0, Math.floor(Math.log2(1 / scale) + 1e-6)));
    context.imageSmoothingEnabled = scale < 3;
    context.imageSmoothingQuality = "medium";
    const seen = this.seen(level);
    const missing = seen.filter((tile) => !this.ready.has(tile.key));
    // Coarser tiles stand in until the right ones come.
    if (missing.length) for (let coarse = last; coarse > level; coarse--) this.paint(context, this.seen(coarse), scale);
    this.paint(context, seen, scale);
    const ground = this.seen(last).filter((tile) => !this.ready.has(tile.key));
    this.want([...ground, ...missing.filter((tile) => !ground.some((other) => other.key === tile.key))]);
    while (this.ready.size > KEPT) {
      const [key, bitmap] = this.ready.entries().next().value;
      bitmap.close();
      this.ready.delete(key);
    }
  }

  paint(context, tiles, scale) {
    const at = (value, origin) => Math.round((value - origin) * scale); // whole pixels leave no seams
    for (const { key, x, y, step } of tiles) {
      const bitmap = this.ready.get(key);
      if (!bitmap) continue;
      this.ready.delete(key);
      this.ready.set(key, bitmap);
      const [left, top] = [at(x, camera.x), at(y, camera.y)];
      const right = at(Math.min(x + bitmap.width * step, this.photo.width), camera.x);
      const bottom = at(Math.min(y + bitmap.height * step, this.photo.height), camera.y);
      context.drawImage(bitmap, left, top, right - left, bottom - top);
    }
  }

  /** The tiles of a level that are seen, those in the middle first. */
  seen(level) {
    const step = 2 ** level;
    const side = this.side * step;
    const { width, height } = this.photo;
    const [left, top] = [Math.max(0, camera.x), Math.max(0, camera.y)];
    const right = Math.min(width, camera.x + camera.width / camera.scale);
    const bottom = Math.min(height, camera.y + camera.height / camera.scale);
    const tiles = [];
    for (let row = Math.floor(top / side); row * side < bottom; row++) {
      for (let column = Math.floor(left / side); column * side < right; column++) {
        const [x, y] = [column * side, row * side];
        const far = Math.hypot(x + side / 2 - (left + right) / 2, y + side / 2 - (top + bottom) / 2);
        tiles.push({ key: `${level}/${column}/${row}`, level, column, row, x, y, step, far });
      }
    }
    return tiles.sort((one, other) => one.far - other.far);
  }

  want(tiles) {
    this.wanted = tiles;
    const keys = new Set(tiles.map((tile) => tile.key));
    for (const [key, request] of this.coming) if (!keys.has(key)) request.abort();
    this.ask();
  }

  ask() {
    const now = performance.now();
    for (const tile of this.wanted) {
      if (this.coming.size >= AT_ONCE) return;
      if (this.coming.has(tile.key) || this.ready.has(tile.key) || (this.failed.get(tile.key) ?? 0) > now) continue;
      this.fetch(tile);
    }
  }

  async fetch({ key, level, column, row }) {
    const request = new AbortController();
    this.coming.set(key, request);
    try {
      const path = tilePath(this.photo.id, level, column, row, this.photo.version);
      const response = await send("GET", path, { signal: request.signal });
      this.ready.set(key, await createImageBitmap(await response.blob()));
      this.failed.delete(key);
    } catch (error) {
      if (error.name !== "AbortError") {
        const seconds = error instanceof ApiError ? error.after || 2 : 10;
        this.failed.set(key, performance.now() + seconds * 1000);
        setTimeout(() => this.ask(), seconds * 1000 + 50);
      }
    } finally {
      this.coming.delete(key);
    }
    if (this.ready.has(key)) this.onArrival();
    this.ask();
  }

  /** Lets go of requests and pictures. */
  close() {
    this.wanted = [];
    for (const request of this.coming.values()) request.abort();
    for (const bitmap of this.ready.values()) bitmap.close();
    this.ready.clear();
  }
}
