// Where the player looks from: the sequence's first camera, or one that shows all; and its moves.
//
// OpenCV axes as in the files: right, down and forward are the camera's axes in the world.

const FIELD = 40; // degrees, of a view without cameras
const STEEPEST = 0.996; // cosine of the angle between forward and up or down
const WORLD_UPS = [[0, -1, 0], [0, 0, 1]]; // of splats, and of paths made by the nodes
const SAMPLES = 20000;
const SHARE_INSIDE = 0.95; // of the Gaussians, in a view that shows all

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const plus = (a, b, factor = 1) => a.map((value, axis) => value + factor * b[axis]);
const cross = ([a, b, c], [d, e, f]) => [b * f - c * e, c * d - a * f, a * e - b * d];
const scaled = (a, factor) => a.map((value) => value * factor);
const unit = (a) => scaled(a, 1 / (Math.hypot(...a) || 1));

/** A vector turned about an axis of unit length. */
function turned(vector, axis, angle) {
  const cosine = Math.cos(angle);
  const along = scaled(axis, dot(axis, vector) * (1 - cosine));
  return plus(plus(along, vector, cosine), cross(axis, vector), Math.sin(angle));
}

/** Middle and reach of the Gaussians of a packed frame: {centre, radius}. */
export function extentOf(packed, count, words) {
  const floats = new Float32Array(packed.buffer);
  const step = Math.max(1, Math.floor(count / SAMPLES));
  const axes = [[], [], []];
  for (let i = 0; i < count; i += step) {
    for (let axis = 0; axis < 3; axis++) axes[axis].push(floats[i * words + axis]);
  }
  const centre = axes.map((values) => Float32Array.from(values).sort()[values.length >> 1]);
  const reaches = Float32Array.from(axes[0], (x, i) =>
    Math.hypot(x - centre[0], axes[1][i] - centre[1], axes[2][i] - centre[2]),
  ).sort();
  const radius = reaches[Math.floor(SHARE_INSIDE * (reaches.length - 1))];
  return { centre, radius: radius > 0 ? radius : 1 };
}

/** What is up in the world of some cameras, which hold themselves upright as a rule. */
export function upOf(cameras) {
  if (cameras.length === 0) return WORLD_UPS[0];
  const column = (camera, axis) => camera.c2w.slice(0, 3).map((row) => row[axis]);
  const score = (up) =>
    cameras.reduce((sum, camera) => {
      // Level cameras have up across their right; how far they are tilted does not matter.
      const level = Math.abs(dot(column(camera, 0), up));
      return sum - dot(column(camera, 1), up) - 4 * level;
    }, 0) / cameras.length;
  const scores = WORLD_UPS.map(score);
  const best = scores[0] >= scores[1] ? 0 : 1;
  if (scores[best] > 0.2) return WORLD_UPS[best];
  const sum = cameras.reduce((total, camera) => plus(total, column(camera, 1), -1), [0, 0, 0]);
  return Math.hypot(...sum) > 0.1 * cameras.length ? unit(sum) : scaled(column(cameras[0], 1), -1);
}

/** A camera that turns around a point. */
export class View {
  /**
   * @param extent of `extentOf`.
   * @param cameras of the sequence; may be none.
   */
  constructor(extent, cameras) {
    this.extent = extent;
    this.camera = cameras[0] ?? null;
    this.up = upOf(cameras);
    this.reset();
  }

  /** Go back to the first camera, or to where everything is seen. */
  reset() {
    const { centre, radius } = this.extent;
    if (this.camera === null) {
      const focal = 0.5 / Math.tan((FIELD * Math.PI) / 360);
      this.lens = { fx: focal, fy: focal, cx: 0.5, cy: 0.5, skew: 0 };
      Object.assign(this, { right: [1, 0, 0], down: [0, 1, 0], forward: [0, 0, 1] });
      this.target = centre;
      this.distance = radius / Math.sin((FIELD * Math.PI) / 360);
      return;
    }
    const { c2w, fx, fy, cx, cy, skew = 0 } = this.camera;
    this.lens = { fx, fy, cx, cy, skew };
    const column = (axis) => c2w.slice(0, 3).map((row) => row[axis]);
    [this.right, this.down, this.forward] = [0, 1, 2].map(column);
    const position = column(3);
    // It turns around what is straight ahead, as deep as the middle of the scene.
    const depth = dot(plus(centre, position, -1), this.forward);
    this.distance = Math.max(depth, 0.1 * radius);
    this.target = plus(position, this.forward, this.distance);
  }

  get position() {
    return plus(this.target, this.forward, -this.distance);
  }

  /** Turn by angles in radians: `across` moves to the right around the scene, `over` above it. */
  orbit(across, over) {
    const turn = (axis, angle) => {
      for (const name of ["right", "down", "forward"]) this[name] = turned(this[name], axis, angle);
    };
    turn(this.up, across);
    const tilted = turned(this.forward, this.right, -over);
    const [now, then] = [dot(this.forward, this.up), dot(tilted, this.up)];
    if (Math.abs(then) < STEEPEST || Math.abs(then) < Math.abs(now)) turn(this.right, -over);
    // Rounding would add up over thousands of moves.
    this.forward = unit(this.forward);
    this.right = unit(plus(this.right, this.forward, -dot(this.right, this.forward)));
    this.down = cross(this.forward, this.right);
  }

  /** Move the scene across the picture, by shares of the picture's height. */
  pan(right, down) {
    const factor = -this.distance / this.lens.fy;
    this.target = plus(plus(this.target, this.right, right * factor), this.down, down * factor);
  }

  /** Go nearer (factor below 1) or farther. */
  zoom(factor) {
    const { radius } = this.extent;
    this.distance = Math.min(Math.max(this.distance * factor, 1e-3 * radius), 1e3 * radius);
  }

  /** All that a picture of some size in pixels is drawn with; the camera's picture fits inside. */
  projection(width, height) {
    const { fx, fy, cx, cy, skew } = this.lens;
    const aspect = fy / fx; // width to height of the camera's own picture, with square pixels
    const shownHeight = Math.min(height, width / aspect);
    const shownWidth = shownHeight * aspect;
    const position = this.position;
    const axes = [this.right, this.down, this.forward];
    return {
      rotation: axes,
      translation: axes.map((axis) => -dot(axis, position)),
      position,
      fx: fx * shownWidth,
      fy: fy * shownHeight,
      cx: cx * shownWidth + (width - shownWidth) / 2,
      cy: cy * shownHeight + (height - shownHeight) / 2,
      skew: skew * shownWidth,
    };
  }
}
