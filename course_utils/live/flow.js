// A panel that solves dy/dt = v(y, t) with the trained network v, which runs here. The state is
// made by course_utils/live/flow.py.

import { decode, element, inLanguage, normalPair, silu, turn } from "./basics.js";
import { openChoice } from "./choice.js";
import { addProduct } from "./product.js";
import { openStage } from "./stage.js";

const WORDS = {
  en: {
    time: "Time",
    picture: "Points at time",
    steps: "Steps",
    solver: "Solver",
    solvers: { euler: "Euler", midpoint: "Midpoint", heun: "Heun", rk4: "RK4" },
    evaluations: "Network evaluations per point",
    off: "Off the rings",
    offOwn: "Off their own ring",
    ring: "Ring",
    all: "All",
    rings: { blue: "Blue", black: "Black", red: "Red", yellow: "Yellow", green: "Green" },
  },
  he: {
    time: "זמן",
    picture: "הנקודות בזמן",
    steps: "צעדים",
    solver: "פותרן",
    solvers: { euler: "אוילר", midpoint: "נקודת אמצע", heun: "Heun", rk4: "RK4" },
    evaluations: "הפעלות הרשת לכל נקודה",
    off: "מחוץ לטבעות",
    offOwn: "מחוץ לטבעת שלהן",
    ring: "טבעת",
    all: "כולן",
    rings: { blue: "כחולה", black: "שחורה", red: "אדומה", yellow: "צהובה", green: "ירוקה" },
  },
};
const POINTS = 400;
const STEPS = [1, 2, 5, 10, 20, 50];
const AT_START = { steps: 10, solver: "euler" };
const SLICE = 24; // milliseconds of work before the page gets its turn

// --- the network: the formulas of VelocityNet in course_utils/models/flow_matching/velocity.py ---

const BLOCK = 64; // points that go through the network together, an even number

/** A linear layer, with W row by row; zeros fill the outputs up to a multiple of four. */
function linearLayer({ weight, bias }) {
  const [w, b] = [decode(weight), decode(bias)];
  const inputs = w.length / b.length;
  const outputs = 4 * Math.ceil(b.length / 4);
  const layer = { inputs, outputs, weight: new Float64Array(inputs * outputs) };
  layer.weight.set(w);
  layer.bias = new Float64Array(outputs);
  layer.bias.set(b);
  return layer;
}

/** Columns `from` to `to` of a layer's W. */
function columns({ inputs, outputs, weight }, from, to) {
  const part = new Float64Array(outputs * (to - from));
  for (let row = 0; row < outputs; row++)
    part.set(weight.subarray(row * inputs + from, row * inputs + to), row * (to - from));
  return part;
}

/** (a, b, sin ka, sin kb, cos ka, cos kb) for all k, into `to` from `at` on. */
function fourier(a, b, k, to, at) {
  const count = k.length;
  to[at] = a;
  to[at + 1] = b;
  for (let i = 0; i < count; i++) {
    const place = at + 2 + i;
    to[place] = Math.sin(k[i] * a);
    to[place + count] = Math.sin(k[i] * b);
    to[place + 2 * count] = Math.cos(k[i] * a);
    to[place + 3 * count] = Math.cos(k[i] * b);
  }
}

/**
 * v(y, t, label) for all points at once: y and the result hold x₀, y₀, x₁, y₁, …; `label` holds the
 * class of each point, if the network knows classes.
 */
export function makeVelocity(state) {
  const [first, ...others] = state.layers.map(linearLayer);
  const spaceInputs = 2 * (1 + 2 * state.space_k.length);
  const timeInputs = 2 * (1 + 2 * state.time_k.length);
  const spaceWeight = columns(first, 0, spaceInputs);
  const timeWeight = columns(first, spaceInputs, spaceInputs + timeInputs);
  const x = new Float64Array(BLOCK * spaceInputs);
  const sums = [first, ...others].map(({ outputs }) => new Float64Array(BLOCK * outputs));

  // What a class adds to the first layer, bias included: one row a class, or the bias alone.
  const classBias = [first.bias];
  if (state.classes) {
    const table = Float64Array.from(decode(state.embedding));
    const size = table.length / state.classes;
    const weight = columns(first, spaceInputs + timeInputs, first.inputs);
    classBias.length = 0;
    for (let c = 0; c < state.classes; c++)
      classBias.push(addedTo(first.bias, weight, table.subarray(c * size, (c + 1) * size)));
  }

  return (y, t, label) => {
    // Time is the same for all points: its share of the first layer is computed once.
    const nearness = Math.log(1 - t + state.nearest) / -Math.log(state.nearest);
    const time = new Float64Array(timeInputs);
    fourier(t, nearness, state.time_k, time, 0);
    const bias = classBias.map((row) => addedTo(row, timeWeight, time));

    const c = Math.sqrt(t * t + (1 - t) * (1 - t));
    const v = new Float64Array(y.length);
    for (let start = 0; start < y.length / 2; start += BLOCK) {
      const rows = Math.min(BLOCK, y.length / 2 - start);
      for (let row = 0; row < rows; row++) {
        const i = 2 * (start + row);
        fourier(y[i] / c, y[i + 1] / c, state.space_k, x, row * spaceInputs);
        sums[0].set(bias[label ? label[start + row] : 0], row * first.outputs);
      }
      addProduct(spaceWeight, spaceInputs, first.outputs, x, spaceInputs, sums[0], rows);
      others.forEach(({ inputs, outputs, weight, bias }, l) => {
        const [h, stride, sum] = [sums[l], sums[l].length / BLOCK, sums[l + 1]];
        for (let i = 0; i < rows * stride; i++) h[i] = silu(h[i]);
        for (let row = 0; row < rows; row++) sum.set(bias, row * outputs);
        addProduct(weight, inputs, outputs, h, stride, sum, rows);
      });
      const [net, stride] = [sums.at(-1), sums.at(-1).length / BLOCK];
      for (let row = 0; row < rows; row++)
        for (const axis of [0, 1]) {
          const i = 2 * (start + row) + axis;
          v[i] = ((2 * t - 1) / (c * c)) * y[i] + net[row * stride + axis] / c;
        }
    }
    return v;
  };
}

/** bias + W·u as a new row. */
function addedTo(bias, weight, u) {
  return bias.map((b, row) => u.reduce((sum, v, j) => sum + weight[row * u.length + j] * v, b));
}

// --- the solvers: course_utils/solvers.py --------------------------------------------------------

// Stage after stage: how far along the slope before it, and what its own slope weighs in the step.
export const SOLVERS = {
  euler: [[0, 1]],
  midpoint: [[0, 0], [1 / 2, 1]],
  heun: [[0, 1 / 2], [1, 1 / 2]],
  rk4: [[0, 1 / 6], [1 / 2, 1 / 3], [1 / 2, 1 / 3], [1, 1 / 6]],
};

/** From y at t = 0 to t = 1: returns the steps + 1 states, and pauses after each evaluation. */
export function* walk(velocity, y, label, steps, solver) {
  const states = [y];
  const h = 1 / steps;
  for (let n = 0; n < steps; n++) {
    let slope = y; // the first stage goes no way along it
    const next = y.slice();
    for (const [far, weight] of SOLVERS[solver]) {
      const place = y.map((v, i) => v + h * far * slope[i]);
      slope = velocity(place, n / steps + h * far, label);
      for (let i = 0; i < next.length; i++) next[i] += h * weight * slope[i];
      yield;
    }
    y = next;
    states.push(y);
  }
  return states;
}

/** The states of all steps at once. */
export function trajectory(velocity, y, label, steps, solver) {
  const walking = walk(velocity, y, label, steps, solver);
  let found = walking.next();
  while (!found.done) found = walking.next();
  return found.value;
}

/** Share of the points off the rings, or with classes off the ring of their class. */
export function shareOff(points, label, { circles, mean, std }) {
  const inside = (i, ring) => {
    const [[cx, cy, inner], [, , outer]] = [circles[2 * ring], circles[2 * ring + 1]];
    const [x, y] = [0, 1].map((axis) => points[2 * i + axis] * std[axis] + mean[axis]);
    const distance = Math.hypot(x - cx, y - cy);
    return inner <= distance && distance <= outer;
  };
  const rings = Array.from({ length: circles.length / 2 }, (_, ring) => ring);
  const count = points.length / 2;
  let off = 0;
  for (let i = 0; i < count; i++)
    if (!(label ? [label[i]] : rings).some((ring) => inside(i, ring))) off++;
  return off / count;
}

// --- the panel -----------------------------------------------------------------------------------

function choice(label, options, chosen, parent) {
  const title = element("label", { textContent: `${label} ` }, parent);
  const select = element("select", {}, title);
  for (const [value, text] of options) element("option", { value, textContent: text }, select);
  select.value = chosen;
  return select;
}

/** Radio buttons with the colour of each ring, and one for all of them, −1. */
function openRings(names, words, parent, changed) {
  const rings = names.map((ring) => ({
    text: words.rings[ring],
    paint: `var(--live-${ring})`,
    edge: `var(--live-${ring}-edge, transparent)`,
  }));
  const options = [{ text: words.all }, ...rings];
  openChoice(words.ring, options, parent, (i) => changed(i - 1)).choose(0);
}

function render({ model, el }) {
  const state = model.get("state");
  const words = inLanguage(WORDS);
  const velocity = makeVelocity(state.velocity);
  const names = state.class_names;
  const stage = openStage({
    el,
    state,
    label: words.time,
    picture: words.picture,
    end: 1,
    digits: 2,
    seconds: 3,
    radius: 1.8,
    renew,
  });
  const row = element("div", { className: "live-controls" }, el);
  const solver = choice(words.solver, Object.entries(words.solvers), AT_START.solver, row);
  const steps = choice(words.steps, STEPS.map((n) => [n, n]), AT_START.steps, row);
  let ring = -1; // of all points; −1: a fifth of the points for each
  if (names.length > 0)
    openRings(names, words, row, (chosen) => { ring = chosen; solve(); });
  const facts = element("p", { className: "live-facts" }, el);
  const cost = element("span", {}, facts);
  const off = element("output", {}, facts);
  const percent = new Intl.NumberFormat("en", { style: "percent" });

  const tellCost = (count) => { cost.textContent = `${words.evaluations}: ${count}`; };

  let noise;
  let job = 0;
  async function solve() {
    const mine = ++job;
    const labels = names.length
      ? Array.from({ length: POINTS }, (_, i) => (ring < 0 ? i % names.length : ring))
      : null;
    el.setAttribute("aria-busy", "true");
    const walking = walk(velocity, noise, labels, Number(steps.value), solver.value);
    let evaluations = 0;
    let rest = performance.now() + SLICE;
    let found = walking.next();
    while (!found.done) {
      if (performance.now() > rest) {
        tellCost(evaluations);
        await turn();
        if (mine !== job) return; // a newer choice has replaced this one
        rest = performance.now() + SLICE;
      }
      evaluations++;
      found = walking.next();
    }
    el.removeAttribute("aria-busy");
    tellCost(evaluations);
    const share = percent.format(shareOff(found.value.at(-1), labels, state));
    off.textContent = `${labels ? words.offOwn : words.off}: ${share}`;
    stage.show(found.value, labels?.map((label) => names[label]));
  }

  function renew() {
    noise = Float64Array.from(Array.from({ length: POINTS }, normalPair).flat());
    solve();
  }

  for (const select of [steps, solver]) select.addEventListener("change", solve);
  renew();
  return () => {
    job++;
    stage.close();
  };
}

export default { render };
