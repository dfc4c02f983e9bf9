// The saved sequence that a player shows: manifest, cameras, and frames, one after the other.

import { PlyError, readColours, readFrame } from "./ply.js";

export const MOST_BYTES = 512 * 1024 * 1024; // of all frames together, in the page's memory

const VERSION = 1;

/** What is wrong with a sequence, in words for the person who looks at the player. */
export class SequenceError extends Error {}

/**
 * Moments of a moving splat.
 *
 * Places in time are counted in frames of the manifest, from 0 to `last`; where not all of them fit
 * into memory, every other one or fewer are kept, and the player goes smoothly between those.
 */
export class Sequence {
  /** @param fetchFile (name, signal) -> Response of a file of the folder. */
  constructor(fetchFile) {
    this.fetchFile = fetchFile;
    this.frames = []; // packed, of readFrame
    this.kept = []; // which frames of the manifest they are or will be
    this.count = 0; // Gaussians
    this.colours = null; // of readColours
    this.cameras = []; // as the file has them
    this.warning = "";
  }

  /** The last place in time. */
  get last() {
    return this.manifest.frames.length - 1;
  }

  /** The last place in time that is there. */
  get reached() {
    return this.kept[this.frames.length - 1] ?? 0;
  }

  /** Whether every frame that will be kept is there. */
  get complete() {
    return this.frames.length === this.kept.length;
  }

  /** Fetch everything; `onFrame` is called after each frame, the first time with one. */
  async load(signal, onFrame) {
    this.manifest = checkedManifest(await this.json("manifest.json", signal));
    if (this.manifest.cameras) await this.loadCameras(signal);
    this.kept = [0];
    for (let number = 0; number < this.kept.length; number++) {
      const name = this.manifest.frames[this.kept[number]].file;
      const buffer = await (await this.file(name, signal)).arrayBuffer();
      const frame = named(() => readFrame(buffer, name));
      if (number === 0) this.begin(frame, named(() => readColours(buffer, name)));
      if (frame.count !== this.count) {
        throw new SequenceError(
          `${name} has ${frame.count} Gaussians, but the first frame ${this.count}.`,
        );
      }
      this.frames.push(frame.packed);
      onFrame();
    }
  }

  begin(first, colours) {
    this.count = first.count;
    this.colours = colours;
    const fitting = Math.floor(MOST_BYTES / first.packed.byteLength);
    const all = this.manifest.frames.length;
    if (fitting < 2) {
      const many = this.count.toLocaleString("en");
      throw new SequenceError(`${many} Gaussians are too many for the player.`);
    }
    this.kept = evenly(all, Math.min(all, fitting));
  }

  async loadCameras(signal) {
    try {
      const file = await this.json(this.manifest.cameras, signal);
      this.cameras = Array.isArray(file.cameras) ? file.cameras.filter(isCamera) : [];
      if (this.cameras.length === 0) throw new SequenceError("it holds no camera.");
    } catch (error) {
      if (!(error instanceof SequenceError)) throw error;
      this.warning = `no first camera: ${error.message}`;
    }
  }

  async file(name, signal) {
    let response;
    try {
      response = await this.fetchFile(name, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      throw new SequenceError(
        `${name} could not be fetched (${error.message}). Is ComfyUI still running?`,
      );
    }
    if (!response.ok) {
      throw new SequenceError(
        `${name} could not be fetched (${response.status}). Files of previews go when ComfyUI ` +
          "starts anew: run the node again.",
      );
    }
    return response;
  }

  async json(name, signal) {
    const response = await this.file(name, signal);
    try {
      return await response.json();
    } catch (error) {
      if (signal.aborted) throw error;
      throw new SequenceError(`${name} is damaged: run the node again.`);
    }
  }

  /** The two frames around a place in time, and how far it is from the first to the second. */
  around(place) {
    const loaded = this.frames.length;
    const at = Math.min(Math.max(place, 0), this.reached);
    let before = 0;
    let after = loaded - 1;
    while (after - before > 1) {
      const middle = (before + after) >> 1;
      if (this.kept[middle] <= at) before = middle;
      else after = middle;
    }
    const span = this.kept[after] - this.kept[before];
    const blend = span > 0 ? (at - this.kept[before]) / span : 0;
    return { before, after, blend };
  }
}

function named(read) {
  try {
    return read();
  } catch (error) {
    if (error instanceof PlyError) throw new SequenceError(`${error.message}: run the node again.`);
    throw error;
  }
}

function evenly(all, wanted) {
  const step = (all - 1) / Math.max(wanted - 1, 1);
  return Array.from({ length: wanted }, (_, number) => Math.round(number * step));
}

function checkedManifest(manifest) {
  const frames = manifest?.frames;
  if (manifest?.version !== VERSION || !Array.isArray(frames) || frames.length < 1) {
    throw new SequenceError(`manifest.json is not of version ${VERSION}: run the node again.`);
  }
  if (!frames.every((frame) => typeof frame?.file === "string") || !(manifest.fps > 0)) {
    throw new SequenceError("manifest.json is damaged: run the node again.");
  }
  return manifest;
}

function isCamera(camera) {
  const rows = camera?.c2w;
  const numbers = [camera?.fx, camera?.fy, camera?.cx, camera?.cy];
  if (!Array.isArray(rows) || rows.length !== 4) return false;
  return [...rows.flat(), ...numbers].every(Number.isFinite);
}
