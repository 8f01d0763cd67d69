// Masks as polygons: a list of parts, each with its outer ring first and then its holes, in pixels of the photo.

const paths = new WeakMap();
const context = document.createElement("canvas").getContext("2d");

/** @param {import("./state.js").XY[][][]} polygons */
export function pathOf(polygons) {
  let path = paths.get(polygons);
  if (!path) {
    path = new Path2D();
    for (const ring of polygons.flat()) {
      ring.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
      path.closePath();
    }
    paths.set(polygons, path);
  }
  return path;
}

/** Whether a mask has the pixel. @param {{box: number[], polygons: any}} mask @param {import("./state.js").XY} pixel */
export function covers({ box, polygons }, [x, y]) {
  return x >= box[0] - 1 && y >= box[1] - 1 && x <= box[2] + 1 && y <= box[3] + 1
    && context.isPointInPath(pathOf(polygons), x + 0.5, y + 0.5, "evenodd");
}

/** The smallest of the masks that have the pixel: larger ones around it can be reached beside it. */
export function smallestAt(masks, pixel) {
  const below = pixel ? masks.filter((mask) => covers(mask, pixel)) : [];
  return below.reduce((least, mask) => (!least || mask.area < least.area ? mask : least), null);
}
