// A player of a moving splat: loads a sequence, draws it, and does what its controls say.

import { Clock } from "./clock.js";
import { keepInside, listenToPointer, makeControls } from "./controls.js";
import { WORDS } from "./ply.js";
import { acquireRenderer, releaseRenderer, RendererError, SplatOnCard } from "./renderer.js";
import { Sequence, SequenceError } from "./sequence.js";
import { DepthOrder } from "./sort.js";
import { extentOf, View } from "./view.js";

const EMPTY = "Run the graph: the moving splat is shown here.";
const MOST_PIXELS = 1024; // a side of the picture
const LONGEST_STEP = 0.25; // seconds that may go by at once, after the page was hidden

/** One player; `root` is its element, whose data-state is empty, loading, ready or failed. */
export class Player {
  constructor() {
    Object.assign(this, makeControls());
    this.context = this.canvas.getContext("2d");
    this.clock = new Clock();
    this.pictures = 0; // drawn so far
    this.request = 0;
    this.renderer = null;
    this.unload();
    this.tell("empty", EMPTY);
    this.listen();
  }

  /** Show a sequence: `fetchFile` is as `Sequence` takes it. */
  async show(fetchFile) {
    this.unload();
    this.tell("loading", "Loading ...");
    const started = performance.now();
    const loading = new AbortController();
    this.loading = loading;
    const sequence = new Sequence(fetchFile);
    try {
      this.useRenderer();
      await sequence.load(loading.signal, () => {
        if (loading.signal.aborted) return;
        if (this.sequence === null) this.begin(sequence, started);
        this.progress();
      });
    } catch (error) {
      if (loading.signal.aborted) return;
      const known = error instanceof SequenceError || error instanceof RendererError;
      this.fail(known ? error.message : `The player failed: ${error.message}`);
      if (!known) console.error(error);
    }
  }

  useRenderer() {
    if (this.renderer !== null) return;
    this.renderer = acquireRenderer();
    this.restored = () => this.draw();
    this.renderer.listeners.add(this.restored);
  }

  begin(sequence, started) {
    this.sequence = sequence;
    const extent = extentOf(sequence.frames[0], sequence.count, WORDS);
    this.view = new View(extent, sequence.cameras);
    this.order = new DepthOrder(sequence.count);
    this.splat = new SplatOnCard(this.renderer, sequence.colours, sequence.count);
    this.clock.fps = sequence.manifest.fps;
    this.slider.max = sequence.last;
    const start = sequence.cameras.length > 0 ? "the first camera" : "where all is seen";
    const back = `Back to ${start}`;
    this.camera.title = back;
    this.camera.setAttribute("aria-label", back);
    this.message.textContent = "";
    this.enable(true);
    this.paint(performance.now());
    this.firstPicture = performance.now() - started;
  }

  progress() {
    const { sequence } = this;
    const [there, all] = [sequence.frames.length, sequence.kept.length];
    this.clock.last = sequence.reached;
    if (sequence.complete) {
      const some = all <= sequence.last ? ` of ${sequence.last + 1}, to save memory` : "";
      const told = `${all} frames${some}, ${sequence.count.toLocaleString("en")} Gaussians`;
      this.tell("ready", "", sequence.warning ? `${told}; ${sequence.warning}` : told);
    } else {
      this.tell("loading", "", `${there} of ${all} frames`);
    }
    this.showTime(); // no new picture: more of the same splat is there, and none of it is shown yet
  }

  fail(message) {
    // What is there already can still be looked at.
    const there = this.sequence?.frames.length ?? 0;
    if (there > 0) this.tell("failed", "", `${there} frames; ${message}`);
    else this.tell("failed", message);
  }

  tell(state, message, status = "") {
    this.root.dataset.state = state;
    this.message.textContent = message;
    this.status.textContent = status;
    this.status.title = status;
  }

  unload() {
    this.loading?.abort();
    this.loading = null;
    this.splat?.dispose();
    this.splat = null;
    this.sequence = null;
    this.view = null;
    this.sorted = null;
    Object.assign(this.clock, { playing: false, last: 0, run: 0 });
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.enable(false);
    this.showTime();
  }

  /** Give back all that it holds; it can show something again. */
  dispose() {
    this.unload();
    cancelAnimationFrame(this.request);
    this.request = 0;
    if (this.renderer === null) return;
    this.renderer.listeners.delete(this.restored);
    this.renderer = null;
    releaseRenderer();
    this.tell("empty", EMPTY);
  }

  enable(enabled) {
    const controls = [this.play, this.slider, this.speed, this.mode, this.camera];
    for (const control of controls) control.disabled = !enabled;
  }

  listen() {
    const { canvas, clock, root, slider } = this;
    keepInside(root);
    listenToPointer(this.stage, {
      orbit: (right, down) => this.move((view) => view.orbit(-right * Math.PI, down * Math.PI)),
      pan: (right, down) =>
        this.move((view) => view.pan((right * canvas.width) / canvas.height, down)),
      zoom: (factor) => this.move((view) => view.zoom(factor)),
      reset: () => this.move((view) => view.reset()),
    });
    // Else the first wheel would be the graph's, in some of the page's modes.
    this.stage.addEventListener("pointerdown", () => root.focus({ preventScroll: true }));
    this.camera.addEventListener("click", () => this.move((view) => view.reset()));
    this.play.addEventListener("click", () => this.toggle());
    slider.addEventListener("input", () => this.seek(Number(slider.value)));
    this.speed.addEventListener("change", () => (clock.speed = Number(this.speed.value)));
    this.mode.addEventListener("change", () => clock.setMode(this.mode.value));
    root.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  key(event) {
    const onControl = ["BUTTON", "SELECT"].includes(event.target.tagName);
    const place = Math.round(this.clock.place);
    const actions = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.seek(place - 1),
      ArrowRight: () => this.seek(place + 1),
      Home: () => this.seek(0),
      End: () => this.seek(this.clock.last),
    };
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (this.sequence === null || !(event.key in actions) || !plain || onControl) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }

  move(change) {
    if (this.view === null) return;
    change(this.view);
    this.draw();
  }

  toggle() {
    this.clock.toggle();
    this.before = undefined;
    this.draw();
  }

  /** Go to a place in time, and stay there. */
  seek(place) {
    this.clock.playing = false;
    this.clock.place = place;
    this.draw();
  }

  /** Have a picture drawn soon. */
  draw() {
    this.showTime();
    if (this.request === 0) this.request = requestAnimationFrame((now) => this.tick(now));
  }

  tick(now) {
    this.request = 0;
    if (this.sequence === null || !this.root.isConnected) return;
    const elapsed = Math.min((now - (this.before ?? now)) / 1000, LONGEST_STEP);
    this.before = now;
    this.clock.advance(elapsed);
    const upToDate = this.paint(now);
    if (this.clock.playing || !upToDate) this.draw();
    else this.showTime();
  }

  /** Draw now; tell whether the order of the Gaussians was that of this picture. */
  paint(now) {
    const { sequence, splat, order, canvas } = this;
    const [width, height] = this.size();
    if (width === 0 || height === 0) return true;
    if (canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
    }
    if (!splat.refresh()) this.sorted = null;
    const { before, after, blend } = sequence.around(this.clock.place);
    const projection = this.view.projection(width, height);
    const frames = [sequence.frames[before], sequence.frames[after]];
    const axis = [...projection.rotation[2], projection.translation[2]];
    const wanted = [before, after, blend, ...axis].join();
    if (this.sorted === null || (this.sorted !== wanted && order.ready(now))) {
      order.sort(...frames, blend, projection);
      splat.setOrder(order.order, order.length);
      this.sorted = wanted;
    }
    splat.setFrames(...frames);
    this.renderer.draw(splat, projection, blend, this.context);
    this.pictures++;
    return this.sorted === wanted;
  }

  size() {
    const { clientWidth, clientHeight } = this.stage;
    const most = MOST_PIXELS / Math.max(clientWidth, clientHeight, 1);
    const factor = Math.min(window.devicePixelRatio || 1, most);
    return [clientWidth, clientHeight].map((side) => Math.round(side * factor));
  }

  showTime() {
    const { clock, play, slider } = this;
    play.textContent = clock.playing ? "❚❚" : "▶";
    const label = clock.playing ? "Pause" : "Play";
    play.setAttribute("aria-label", label);
    play.title = label;
    const last = this.sequence?.last ?? 0;
    const place = clock.place;
    const shown = `${Math.round(place) + 1} / ${last + 1}, t ${(place / last).toFixed(2)}`;
    const told = last > 0 ? shown : "";
    this.time.textContent = told;
    slider.value = place;
    slider.setAttribute("aria-valuetext", told);
  }
}
