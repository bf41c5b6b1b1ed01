// A panel with a slider over the layers of an affine coupling flow; the flow itself runs here.
// The state is made by course_utils/live/layers.py.

import { decode, inLanguage, normalPair, silu } from "./basics.js";
import { openStage } from "./stage.js";

const WORDS = {
  en: { layer: "Layer", picture: "Points after layer" },
  he: { layer: "שכבה", picture: "הנקודות אחרי שכבה" },
};
const POINTS = 800;

// --- the flow: the formulas of course_utils/models/normalizing_flow.py ---------------------------

/** W·x + b, with W stored row by row. */
const linear = ({ weight, bias }, x) =>
  bias.map((b, row) => x.reduce((sum, v, j) => sum + weight[row * x.length + j] * v, b));

/** Linear layers with SiLU between them and a single output. */
const mlp = (layers, x) =>
  layers.reduce((h, layer, i) => linear(layer, i ? h.map(silu) : h), x)[0];

/** z → [z, after the first coupling, …, φ(z)], in the coordinates of the data. */
export function makePath(state) {
  const network = (layers) =>
    layers.map(({ weight, bias }) => ({ weight: decode(weight), bias: decode(bias) }));
  const couplings = state.couplings.map((c) => {
    const logScale = network(c.log_scale);
    const shift = network(c.shift);
    const moving = 1 - c.fixed;
    return (x) => {
      const a = x[c.fixed];
      const angles = c.k.map((k) => k * a);
      const h = Float32Array.of(a, ...angles.map(Math.sin), ...angles.map(Math.cos));
      const s = c.max_log_scale * Math.tanh(mlp(logScale, h) / c.max_log_scale);
      const y = [...x];
      y[moving] = x[moving] * Math.exp(s) + mlp(shift, h); // y_b = x_b·exp(s(x_a)) + t(x_a)
      return y;
    };
  });
  return (z) => couplings.reduce((frames, step) => [...frames, step(frames.at(-1))], [z]);
}

// --- the panel -----------------------------------------------------------------------------------

function render({ model, el }) {
  const state = model.get("state");
  const words = inLanguage(WORDS);
  const path = makePath(state);
  const layers = state.couplings.length;
  const stage = openStage({
    el,
    state,
    label: words.layer,
    picture: words.picture,
    end: layers,
    digits: 1,
    seconds: layers / 2,
    radius: 1.4,
    renew,
  });

  function renew() {
    const paths = Array.from({ length: POINTS }, () => path(normalPair()));
    const after = (layer) => paths.flatMap((points) => points[layer]);
    stage.show(Array.from({ length: layers + 1 }, (_, layer) => after(layer)));
  }

  renew();
  return stage.close;
}

export default { render };
