// The elements of a player: a stage with a canvas, a bar for time, a bar for the rest.

import { MODES } from "./clock.js";

const SPEEDS = [0.25, 0.5, 1, 2];

/** Make an element with properties, attributes (of accessibility), and children. */
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function choices(label, values, chosen) {
  const options = values.map(([value, text]) => make("option", { value, textContent: text }));
  const select = make("select", { title: label, "aria-label": label }, ...options);
  select.value = chosen;
  return select;
}

/** Load the style sheet once. */
function addStyle() {
  const href = new URL("./player.css", import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  document.head.append(make("link", { rel: "stylesheet", href }));
}

/** All elements by name; `root` holds the others. */
export function makeControls() {
  addStyle();
  const seen = { role: "img", "aria-label": "The moving splat" };
  const canvas = make("canvas", { width: 1, height: 1, ...seen });
  const message = make("div", { className: "genxd-player-message" });
  const status = make("div", { className: "genxd-player-status", role: "status" });
  const stage = make("div", { className: "genxd-player-stage" }, canvas, message, status);
  const play = make("button", { type: "button", className: "genxd-player-play" });
  const range = { type: "range", min: 0, max: 0, step: "any", value: 0 };
  const slider = make("input", { ...range, "aria-label": "Time" });
  const time = make("span", { className: "genxd-player-time" });
  const speed = choices("Speed", SPEEDS.map((value) => [String(value), `${value}×`]), "1");
  const mode = choices("At the end", MODES.map((value) => [value, value]), MODES[0]);
  const camera = make("button", { type: "button", textContent: "camera" });
  const root = make(
    "div",
    {
      className: "genxd-player",
      tabIndex: 0,
      role: "group",
      "aria-label": "Player of a moving splat",
      "data-capture-wheel": "true", // else the page's canvas takes it while this has the focus
    },
    stage,
    make("div", { className: "genxd-player-bar" }, play, slider, time),
    make("div", { className: "genxd-player-bar" }, camera, speed, mode),
  );
  return { root, stage, canvas, message, play, slider, time, speed, mode, camera, status };
}

/** Call handlers for drags, wheel and double clicks on a stage; the page's canvas hears nothing. */
export function listenToPointer(stage, { orbit, pan, zoom, reset }) {
  let last = null;
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    last = [event.clientX, event.clientY];
  });
  stage.addEventListener("pointermove", (event) => {
    if (last === null || event.buttons === 0) return;
    // In shares of the stage, whatever the zoom of the graph.
    const { width, height } = stage.getBoundingClientRect();
    const moved = [(event.clientX - last[0]) / width, (event.clientY - last[1]) / height];
    last = [event.clientX, event.clientY];
    if (event.shiftKey || event.buttons !== 1) pan(...moved);
    else orbit(...moved);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    stage.addEventListener(name, () => (last = null));
  }
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    // Some browsers count lines, and pads send many small steps.
    const pixels = event.deltaMode === 1 ? 20 * event.deltaY : event.deltaY;
    zoom(Math.exp(0.001 * Math.min(Math.max(pixels, -300), 300)));
  }, { passive: false });
  stage.addEventListener("dblclick", reset);
}

/** Keep what happens in an element from the page around it. */
export function keepInside(root) {
  const names = [
    "pointerdown", "pointermove", "pointerup", "mousedown", "mousemove", "mouseup",
    "click", "dblclick", "wheel", "contextmenu",
  ];
  for (const name of names) root.addEventListener(name, (event) => event.stopPropagation());
  root.addEventListener("contextmenu", (event) => event.preventDefault());
}
