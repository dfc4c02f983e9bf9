// Gaussians from the farthest to the nearest, by counting.

import { WORDS } from "./ply.js";

const BINS = 1 << 16;
const NEAR = 0.01; // in scene units, as everywhere in the pack
const SLOW = 8; // milliseconds; what takes longer is not done for every picture
const REST = 4; // times as long as a slow sort took, until the next

/** The order of the Gaussians of one sequence. */
export class DepthOrder {
  constructor(count) {
    this.order = new Uint32Array(count);
    this.length = 0; // how many of them lie in front of the camera
    this.depths = new Float32Array(count);
    this.bins = new Uint32Array(BINS + 1);
    this.took = 0;
    this.at = -Infinity;
  }

  /** Whether there is time to sort again, at a time in milliseconds. */
  ready(now) {
    return this.took < SLOW || now - this.at > REST * this.took;
  }

  /** Sort for a place between two packed frames. */
  sort(before, after, blend, projection) {
    const started = performance.now();
    const { order, depths, bins } = this;
    const [from, to] = [new Float32Array(before.buffer), new Float32Array(after.buffer)];
    const [x, y, z] = projection.rotation[2];
    const shift = projection.translation[2];
    const rest = 1 - blend;
    let least = Infinity;
    let most = -Infinity;
    for (let i = 0, at = 0; i < depths.length; i++, at += WORDS) {
      const depth =
        x * (rest * from[at] + blend * to[at]) +
        y * (rest * from[at + 1] + blend * to[at + 1]) +
        z * (rest * from[at + 2] + blend * to[at + 2]) +
        shift;
      depths[i] = depth;
      if (depth > NEAR) {
        if (depth < least) least = depth;
        if (depth > most) most = depth;
      }
    }
    bins.fill(0);
    const factor = most > least ? (BINS - 1) / (most - least) : 0;
    for (let i = 0; i < depths.length; i++) {
      if (depths[i] > NEAR) bins[((most - depths[i]) * factor) | 0]++;
    }
    let sum = 0;
    for (let bin = 0; bin < BINS; bin++) {
      const here = bins[bin];
      bins[bin] = sum;
      sum += here;
    }
    for (let i = 0; i < depths.length; i++) {
      if (depths[i] > NEAR) order[bins[((most - depths[i]) * factor) | 0]++] = i;
    }
    this.length = sum;
    this.at = performance.now();
    this.took = this.at - started;
  }
}
