// One WebGL2 context for all players of the page, which browsers allow only some sixteen of.
//
// Each player has its own textures (two frames, colours) and a plain 2D canvas, onto which its
// picture is copied; the context goes when the last player goes. A picture is two steps: Gaussians
// are projected, once each, into a buffer that becomes a texture, and drawn from there as triangles
// (not as instances of a quad, which are slow on many cards, and very slow without one).

import { COLOUR_TEXELS, ROW } from "./ply.js";
import { FRAGMENT, NOTHING, PROJECT, PROJECTED, VERTEX } from "./shaders.js";

const UNIFORMS = [
  ..."before after colours blend rotation translation eye lens skew size".split(" "),
  ..."frameRow colourRow coefficients projected".split(" "),
];

const CORNERS = [0, 1, 2, 2, 1, 3];

/** Why nothing can be drawn, in words for the person who looks at the player. */
export class RendererError extends Error {}

let shared = null;
let users = 0;

/** The page's renderer; `releaseRenderer` gives it back. Throws RendererError. */
export function acquireRenderer() {
  if (shared === null) shared = new Renderer();
  users++;
  return shared;
}

/** Give the renderer back. */
export function releaseRenderer() {
  users--;
  if (users > 0 || shared === null) return;
  shared.gl.getExtension("WEBGL_lose_context")?.loseContext();
  shared = null;
}

class Renderer {
  constructor() {
    this.canvas = document.createElement("canvas");
    const options = { alpha: true, premultipliedAlpha: true, antialias: false, depth: false };
    this.gl = this.canvas.getContext("webgl2", options);
    if (this.gl === null) {
      throw new RendererError("This browser has no WebGL2, which the player draws with.");
    }
    this.generation = 0; // of what is on the card: it is lost with the context
    this.listeners = new Set();
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.build();
      for (const listener of this.listeners) listener();
    });
    this.build();
  }

  build() {
    this.generation++;
    this.projecting = this.program(PROJECT, NOTHING, PROJECTED);
    this.drawing = this.program(VERTEX, FRAGMENT, []);
    this.corners = { buffer: this.gl.createBuffer(), count: 0 };
  }

  /** The corners of the two triangles of so many Gaussians, as attribute 0. */
  bindCorners(count) {
    const { gl, corners } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, corners.buffer);
    if (corners.count < count) {
      const values = new Uint8Array(6 * count);
      for (let i = 0; i < values.length; i += 6) values.set(CORNERS, i);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      corners.count = count;
    }
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_BYTE, 0, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, null);
  }

  /** A program and where its uniforms are; `kept` are outputs that go into a buffer. */
  program(vertex, fragment, kept) {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    if (kept.length > 0) gl.transformFeedbackVaryings(program, kept, gl.INTERLEAVED_ATTRIBS);
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const said = gl.getProgramInfoLog(program);
      throw new RendererError(`The graphics driver refuses the player: ${said}`);
    }
    const places = UNIFORMS.map((name) => [name, gl.getUniformLocation(program, name)]);
    return { program, at: Object.fromEntries(places) };
  }

  /** Draw a splat and copy the picture onto a 2D context of the same size. */
  draw(splat, projection, blend, context) {
    const { gl, canvas } = this;
    if (gl.isContextLost()) return;
    const { width, height } = context.canvas;
    if (canvas.width < width || canvas.height < height) {
      canvas.width = Math.max(canvas.width, width);
      canvas.height = Math.max(canvas.height, height);
    }
    this.project(splat, projection, blend, width, height);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(this.drawing.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.uniform2f(this.drawing.at.size, width, height);
    gl.uniform1i(this.drawing.at.frameRow, ROW);
    gl.uniform1i(this.drawing.at.projected, 0);
    gl.bindTexture(gl.TEXTURE_2D, splat.projected);
    this.bindCorners(splat.count);
    gl.drawArrays(gl.TRIANGLES, 0, 6 * splat.drawn);
    context.clearRect(0, 0, width, height);
    context.drawImage(canvas, 0, canvas.height - height, width, height, 0, 0, width, height);
  }

  project(splat, projection, blend, width, height) {
    const { gl } = this;
    const { at, program } = this.projecting;
    const { rotation, translation, position, fx, fy, cx, cy, skew } = projection;
    gl.useProgram(program);
    gl.uniformMatrix3fv(at.rotation, true, rotation.flat());
    gl.uniform3fv(at.translation, translation);
    gl.uniform3fv(at.eye, position);
    gl.uniform4f(at.lens, fx, fy, cx, cy);
    gl.uniform1f(at.skew, skew);
    gl.uniform2f(at.size, width, height);
    gl.uniform1f(at.blend, blend);
    gl.uniform1i(at.frameRow, ROW);
    gl.uniform1i(at.colourRow, splat.colours.perRow);
    gl.uniform1i(at.coefficients, splat.colours.coefficients);
    const [before, after] = splat.slots.map((slot) => slot.texture);
    const textures = { before, after, colours: splat.colourTexture };
    Object.entries(textures).forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(at[name], unit);
    });
    gl.activeTexture(gl.TEXTURE0);
    gl.bindVertexArray(splat.points);
    gl.enable(gl.RASTERIZER_DISCARD);
    gl.bindTransformFeedback(gl.TRANSFORM_FEEDBACK, splat.feedback);
    gl.beginTransformFeedback(gl.POINTS);
    gl.drawArrays(gl.POINTS, 0, splat.drawn);
    gl.endTransformFeedback();
    gl.bindTransformFeedback(gl.TRANSFORM_FEEDBACK, null);
    gl.disable(gl.RASTERIZER_DISCARD);
    gl.bindVertexArray(null);
    splat.takeProjected();
  }
}

/** What one player has on the graphics card. */
export class SplatOnCard {
  constructor(renderer, colours, count) {
    Object.assign(this, { renderer, colours, count });
    this.rows = Math.ceil(count / ROW);
    this.drawn = 0;
    this.slots = [];
    this.make();
  }

  make() {
    const { gl } = this.renderer;
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    const colourRows = this.colours.texels.length / (4 * COLOUR_TEXELS);
    if (Math.max(this.rows, colourRows) > most && !gl.isContextLost()) {
      throw new RendererError("There are more Gaussians than the graphics card can hold.");
    }
    this.generation = this.renderer.generation;
    this.slots = [this.texture(), this.texture()].map((texture) => ({ texture, packed: null }));
    this.colourTexture = this.texture();
    const shape = [COLOUR_TEXELS, colourRows, 0, gl.RGBA, gl.HALF_FLOAT];
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, ...shape, this.colours.texels);
    this.orders = this.buffer(4);
    this.points = gl.createVertexArray();
    gl.bindVertexArray(this.points);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.bindVertexArray(null);
    this.results = this.buffer(16 * PROJECTED.length);
    gl.bindBuffer(gl.ARRAY_BUFFER, null);
    this.projected = this.texture();
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32UI, 2 * ROW, this.rows);
    this.feedback = gl.createTransformFeedback();
    gl.bindTransformFeedback(gl.TRANSFORM_FEEDBACK, this.feedback);
    gl.bindBufferBase(gl.TRANSFORM_FEEDBACK_BUFFER, 0, this.results);
    gl.bindTransformFeedback(gl.TRANSFORM_FEEDBACK, null);
  }

  /** A bound buffer with so many bytes a Gaussian. */
  buffer(bytes) {
    const { gl } = this.renderer;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, bytes * ROW * this.rows, gl.DYNAMIC_COPY);
    return buffer;
  }

  /** Bring what was projected from its buffer into its texture, on the card. */
  takeProjected() {
    const { gl } = this.renderer;
    const rows = Math.ceil(this.drawn / ROW);
    gl.bindTexture(gl.TEXTURE_2D, this.projected);
    gl.bindBuffer(gl.PIXEL_UNPACK_BUFFER, this.results);
    const area = [0, 0, 2 * ROW, rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT];
    gl.texSubImage2D(gl.TEXTURE_2D, 0, ...area, 0);
    gl.bindBuffer(gl.PIXEL_UNPACK_BUFFER, null);
  }

  texture() {
    const { gl } = this.renderer;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const kind of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, kind, gl.NEAREST);
    }
    return texture;
  }

  /** Whether the card still has it; if not, it is made anew, without frames and order. */
  refresh() {
    if (this.generation === this.renderer.generation) return true;
    this.make();
    return false;
  }

  /** Bring two packed frames to the card, unless they are there. */
  setFrames(before, after) {
    const wanted = [before, after];
    // Playing on, the second frame becomes the first: it is there already.
    if (this.slots[1].packed === before) this.slots.reverse();
    this.slots.forEach((slot, number) => {
      if (slot.packed !== wanted[number]) this.upload(slot, wanted[number]);
    });
  }

  upload(slot, packed) {
    const { gl } = this.renderer;
    gl.bindTexture(gl.TEXTURE_2D, slot.texture);
    const shape = [2 * ROW, this.rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT];
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, ...shape, packed);
    slot.packed = packed;
  }

  /** Bring the order to the card in which Gaussians are drawn. */
  setOrder(order, length) {
    const { gl } = this.renderer;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.orders);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order, 0, length);
    gl.bindBuffer(gl.ARRAY_BUFFER, null);
    this.drawn = length;
  }

  dispose() {
    const { gl } = this.renderer;
    const frames = this.slots.map((slot) => slot.texture);
    const textures = [...frames, this.colourTexture, this.projected];
    for (const texture of textures) gl.deleteTexture(texture);
    for (const buffer of [this.orders, this.results]) gl.deleteBuffer(buffer);
    gl.deleteVertexArray(this.points);
    gl.deleteTransformFeedback(this.feedback);
  }
}
