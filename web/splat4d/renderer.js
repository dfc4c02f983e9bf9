// One WebGL2 context for all players of the page, which browsers allow only some sixteen of.
//
// Each player has its own textures (two frames, colours) and a plain 2D canvas, onto which its
// picture is copied; the context goes when the last player goes.

import { COLOUR_TEXELS, ROW, WORDS } from "./ply.js";
import { FRAGMENT, VERTEX } from "./shaders.js";

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
    const { gl } = this;
    this.generation++;
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new RendererError(`The graphics driver refuses the player: ${gl.getProgramInfoLog(this.program)}`);
    }
    this.uniforms = {};
    const names = "before after colours blend rotation translation eye lens skew size frameRow colourRow coefficients";
    for (const name of names.split(" ")) {
      this.uniforms[name] = gl.getUniformLocation(this.program, name);
    }
  }

  /** Draw a splat and copy the picture onto a 2D context of the same size. */
  draw(splat, projection, blend, context) {
    const { gl, uniforms, canvas } = this;
    if (gl.isContextLost()) return;
    const { width, height } = context.canvas;
    if (canvas.width < width || canvas.height < height) {
      canvas.width = Math.max(canvas.width, width);
      canvas.height = Math.max(canvas.height, height);
    }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const { rotation, translation, position, fx, fy, cx, cy, skew } = projection;
    gl.uniformMatrix3fv(uniforms.rotation, true, rotation.flat());
    gl.uniform3fv(uniforms.translation, translation);
    gl.uniform3fv(uniforms.eye, position);
    gl.uniform4f(uniforms.lens, fx, fy, cx, cy);
    gl.uniform1f(uniforms.skew, skew);
    gl.uniform2f(uniforms.size, width, height);
    gl.uniform1f(uniforms.blend, blend);
    gl.uniform1i(uniforms.frameRow, ROW);
    splat.bind(uniforms);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, splat.drawn);
    gl.bindVertexArray(null);
    context.clearRect(0, 0, width, height);
    context.drawImage(canvas, 0, canvas.height - height, width, height, 0, 0, width, height);
  }
}

/** What one player has on the graphics card. */
export class SplatOnCard {
  constructor(renderer, colours, count) {
    Object.assign(this, { renderer, colours, count });
    this.drawn = 0;
    this.slots = [];
    this.make();
  }

  make() {
    const { gl } = this.renderer;
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    const colourRows = this.colours.texels.length / (4 * COLOUR_TEXELS);
    if (Math.max(Math.ceil(this.count / ROW), colourRows) > most && !gl.isContextLost()) {
      throw new RendererError("There are more Gaussians than this graphics card's textures can hold.");
    }
    this.generation = this.renderer.generation;
    this.slots = [this.texture(), this.texture()].map((texture) => ({ texture, packed: null }));
    this.colourTexture = this.texture();
    const shape = [COLOUR_TEXELS, colourRows, 0, gl.RGBA, gl.HALF_FLOAT];
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, ...shape, this.colours.texels);
    this.buffer = gl.createBuffer();
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, 4 * this.count, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(0, 1);
    gl.bindVertexArray(null);
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
    const rows = packed.length / (WORDS * ROW);
    gl.bindTexture(gl.TEXTURE_2D, slot.texture);
    const shape = [2 * ROW, rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT];
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, ...shape, packed);
    slot.packed = packed;
  }

  /** Bring the order to the card in which Gaussians are drawn. */
  setOrder(order, length) {
    const { gl } = this.renderer;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order, 0, length);
    this.drawn = length;
  }

  bind(uniforms) {
    const { gl } = this.renderer;
    const textures = [this.slots[0].texture, this.slots[1].texture, this.colourTexture];
    ["before", "after", "colours"].forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, textures[unit]);
      gl.uniform1i(uniforms[name], unit);
    });
    gl.activeTexture(gl.TEXTURE0);
    gl.uniform1i(uniforms.colourRow, this.colours.perRow);
    gl.uniform1i(uniforms.coefficients, this.colours.coefficients);
    gl.bindVertexArray(this.array);
  }

  dispose() {
    const { gl } = this.renderer;
    for (const texture of [...this.slots.map((slot) => slot.texture), this.colourTexture]) {
      gl.deleteTexture(texture);
    }
    gl.deleteBuffer(this.buffer);
    gl.deleteVertexArray(this.array);
  }
}
