// Prompts that go with what was drawn: the model makes little of a mask that comes alone.

/** @typedef {{width: number, height: number}} Size of the photo */

/**
 * Pixels along a stroke, about two widths of the brush apart, and few.
 * @param {{points: number[][], radius: number}} stroke @param {Size} size
 */
export function along({ points, radius }, { width, height }) {
  const steps = points.slice(1).map(([x, y], index) => Math.hypot(x - points[index][0], y - points[index][1]));
  const length = steps.reduce((sum, step) => sum + step, 0);
  const count = Math.min(5, Math.max(1, Math.round(length / (4 * radius))));
  const found = [];
  let walked = 0;
  points.forEach((point, index) => {
    walked += index ? steps[index - 1] : 0;
    if (walked >= ((found.length + 0.5) * length) / count && found.length < count) found.push(point);
  });
  return found.map(([x, y]) => [inside(x, width), inside(y, height)]);
}

/** The pixel that a coordinate is in, kept within the photo. */
const inside = (value, size) => Math.min(Math.max(Math.floor(value), 0), size - 1);

/** The box around points. @param {number[][]} points @param {Size} size */
export function around(points, { width, height }) {
  const [xs, ys] = [points.map(([x]) => inside(x, width)), points.map(([, y]) => inside(y, height))];
  const [x0, y0, x1, y1] = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  return [x0, y0, Math.max(x1, x0 + 1), Math.max(y1, y0 + 1)];
}
