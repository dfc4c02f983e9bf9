// One frame of a moving splat: a binary 3DGS .ply, packed as the graphics card takes it.
//
// A Gaussian is eight words of 32 bits: x, y, z as float32; opacity and the third logarithmic scale
// as two halves; four components of the rotation (wxyz) as signed 16 bits; the first two scales as
// halves; one word that is free. Colours are apart, since they are the same in every frame.

export const WORDS = 8; // of 32 bits a Gaussian
export const ROW = 1024; // Gaussians in a row of the texture of a frame
export const COLOUR_TEXELS = 2048; // texels in a row of the texture of colours

const LONGEST_HEADER = 1 << 16;
const SIZES = {
  char: 1, uchar: 1, int8: 1, uint8: 1,
  short: 2, ushort: 2, int16: 2, uint16: 2,
  int: 4, uint: 4, float: 4, int32: 4, uint32: 4, float32: 4,
  double: 8, float64: 8,
};
const NEEDED = [
  "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
  "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
];
const REST_COUNTS = [0, 9, 24, 45];

/** What is wrong with a file, in words for the person who looks at the player. */
export class PlyError extends Error {}

/** Positions, shapes and opacities of a file: {count, packed}, padded to whole rows. */
export function readFrame(buffer, name) {
  const ply = open(buffer, name);
  const { view, count, stride, start } = ply;
  const at = NEEDED.map((property) => ply.offsets.get(property));
  const [x, y, z] = at;
  const [opacity, s0, s1, s2, r0, r1, r2, r3] = at.slice(6);
  const packed = new Uint32Array(Math.ceil(count / ROW) * ROW * WORDS);
  const floats = new Float32Array(packed.buffer);
  for (let i = 0; i < count; i++) {
    const row = start + i * stride;
    const read = (offset) => view.getFloat32(row + offset, true);
    const out = i * WORDS;
    floats[out] = read(x);
    floats[out + 1] = read(y);
    floats[out + 2] = read(z);
    packed[out + 3] = halves(1 / (1 + Math.exp(-read(opacity))), read(s2));
    const w = read(r0), a = read(r1), b = read(r2), c = read(r3);
    const unit = 32767 / (Math.hypot(w, a, b, c) || 1);
    packed[out + 4] = shorts(w * unit, a * unit);
    packed[out + 5] = shorts(b * unit, c * unit);
    packed[out + 6] = halves(read(s0), read(s1));
  }
  return { count, packed };
}

/**
 * Spherical harmonics of a file as texels of four halves, one a coefficient:
 * {coefficients, perRow, texels}, padded to whole rows.
 */
export function readColours(buffer, name) {
  const { view, count, stride, start, offsets, rest } = open(buffer, name);
  const coefficients = 1 + rest / 3;
  const perRow = Math.floor(COLOUR_TEXELS / coefficients);
  const rows = Math.ceil(count / perRow);
  const texels = new Uint16Array(rows * COLOUR_TEXELS * 4);
  for (let channel = 0; channel < 3; channel++) {
    for (let k = 0; k < coefficients; k++) {
      // The file has all coefficients of red, then those of green and blue.
      const number = channel * (coefficients - 1) + k - 1;
      const offset = offsets.get(k === 0 ? `f_dc_${channel}` : `f_rest_${number}`);
      for (let i = 0; i < count; i++) {
        const texel = Math.floor(i / perRow) * COLOUR_TEXELS + (i % perRow) * coefficients + k;
        texels[texel * 4 + channel] = toHalf(view.getFloat32(start + i * stride + offset, true));
      }
    }
  }
  return { coefficients, perRow, texels };
}

function open(buffer, name) {
  const beginning = new Uint8Array(buffer, 0, Math.min(buffer.byteLength, LONGEST_HEADER));
  const head = new TextDecoder("latin1").decode(beginning);
  const end = /\nend_header\r?\n/.exec(head);
  if (!/^ply\r?\n/.test(head) || end === null) {
    throw new PlyError(`${name} is no .ply file, or it is cut off`);
  }
  const lines = head.slice(0, end.index).split(/\r?\n/).slice(1);
  const words = lines.map((line) => line.trim().split(/\s+/));
  const said = words.filter(([word]) => word !== "comment" && word !== "obj_info");
  if (said.shift()?.join(" ") !== "format binary_little_endian 1.0") {
    throw new PlyError(`${name} is not binary little-endian, which is all that the player reads`);
  }
  const [element, ...properties] = said;
  const count = element?.[0] === "element" && element[1] === "vertex" ? Number(element[2]) : NaN;
  if (!Number.isInteger(count) || count < 1 || properties.some(([word]) => word !== "property")) {
    throw new PlyError(`${name} does not consist of Gaussians alone`);
  }
  const offsets = new Map();
  let stride = 0;
  for (const [, type, property] of properties) {
    if (!(type in SIZES) || offsets.has(property)) {
      throw new PlyError(`${name} has a damaged header`);
    }
    if (isRead(property) && type !== "float" && type !== "float32") {
      throw new PlyError(`${name} has ${property} as ${type}; the player reads float`);
    }
    offsets.set(property, stride);
    stride += SIZES[type];
  }
  const missing = NEEDED.find((property) => !offsets.has(property));
  if (missing !== undefined) throw new PlyError(`${name} has no ${missing}, so it is no 3DGS .ply`);
  let rest = 0;
  while (offsets.has(`f_rest_${rest}`)) rest++;
  if (!REST_COUNTS.includes(rest)) throw new PlyError(`${name} has ${rest} f_rest properties`);
  const start = end.index + end[0].length;
  if (buffer.byteLength !== start + count * stride) {
    throw new PlyError(`${name} is cut off or damaged: its size is not what its header says`);
  }
  return { view: new DataView(buffer), count, stride, start, offsets, rest };
}

function isRead(property) {
  return NEEDED.includes(property) || property.startsWith("f_rest_");
}

function shorts(low, high) {
  return ((Math.round(low) & 0xffff) | (Math.round(high) << 16)) >>> 0;
}

function halves(low, high) {
  return (toHalf(low) | (toHalf(high) << 16)) >>> 0;
}

const scratch = new Float32Array(1);
const bits = new Uint32Array(scratch.buffer);

/** The 16 bits of the nearest half-precision number; what is too large becomes the largest. */
export function toHalf(value) {
  scratch[0] = value;
  const sign = (bits[0] >>> 16) & 0x8000;
  const size = bits[0] & 0x7fffffff;
  if (size >= 0x477ff000) return sign | 0x7bff;
  if (size < 0x38800000) {
    // Below the smallest normal half the steps are even: 2^-24.
    scratch[0] = Math.abs(value) * 16777216;
    return sign | Math.round(scratch[0]);
  }
  return sign | ((size - 0x38000000 + 0x0fff + ((size >>> 13) & 1)) >>> 13);
}
