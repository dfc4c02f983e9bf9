// The pack in ComfyUI's page: players inside the nodes that write a moving splat.
//
// ComfyUI loads every .js file below this folder as an extension; the others only define things.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { Player } from "./splat4d/player.js";

const OUTPUT = "genxd_splat4d"; // what nodes tell the page, see nodes/_outputs.py
const WIDGET = "genxd_player";
const ALWAYS = "GenXD_Preview4D"; // has its player from the start
const ON_DEMAND = "GenXD_Save4D"; // only when it has written a sequence
const LEAST = [340, 300]; // pixels of the graph, at scale 1

app.registerExtension({
  name: "GenXD.Splat4D",

  nodeCreated(node) {
    if (node.comfyClass !== ALWAYS && node.comfyClass !== ON_DEMAND) return;
    const executed = node.onExecuted;
    node.onExecuted = function (output, ...rest) {
      executed?.call(this, output, ...rest);
      show(node, output);
    };
    if (node.comfyClass === ALWAYS) addPlayer(node);
  },

  // After another graph was looked at, or a run was opened from the history.
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) {
      const node = output?.[OUTPUT] && app.rootGraph?.getNodeById(id);
      if (node) show(node, output);
    }
  },
});

function addPlayer(node) {
  const player = new Player();
  const widget = node.addDOMWidget(WIDGET, "genxd_player", player.root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => LEAST[1],
  });
  widget.serialize = false; // the option is about prompts, this about saved graphs
  const removed = node.onRemoved;
  node.onRemoved = function (...rest) {
    removed?.apply(this, rest);
    player.dispose();
    node.genxdShown = undefined;
  };
  node.genxdPlayer = player;
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width, LEAST[0]), Math.max(node.size[1], height)]);
  return player;
}

function show(node, output) {
  const entry = output?.[OUTPUT]?.[0];
  if (typeof entry?.folder !== "string") return;
  const key = JSON.stringify(entry);
  if (node.genxdShown === key) return;
  node.genxdShown = key;
  const player = node.genxdPlayer ?? addPlayer(node);
  player.show((filename, signal) => {
    const query = new URLSearchParams({ filename, subfolder: entry.folder, type: entry.type });
    // Numbers of saved files come again after files were removed: ask whether they are the same.
    return api.fetchApi(`/view?${query}`, { signal, cache: "no-cache" });
  });
}
