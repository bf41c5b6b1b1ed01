// A GPT: one pass of the network of course_utils/models/gpt/model.py. The state is made by
// course_utils/live/language.py.

import { fromHalf } from "./basics.js";
import { addProduct } from "./product.js";

// Rows of numbers lie one after the other; a row to spare follows them, for the product.
const makeRows = (count, width) => new Float64Array((count + 1) * width);

/** Where the window begins that predicts the token after `length` tokens, see scoring.py. */
export function windowStart(length, block) {
  const half = Math.max(1, Math.floor(block / 2));
  return half * Math.ceil(Math.max(0, length - block) / half);
}

/** The weights by name, each { values, shape }. */
function named(weights, halves) {
  const values = fromHalf(halves);
  let next = 0;
  return Object.fromEntries(weights.map(([name, shape]) => {
    const from = next;
    next += shape.reduce((a, b) => a * b);
    return [name, { values: values.subarray(from, next), shape }];
  }));
}

// --- layers, each from rows to rows --------------------------------------------------------------

/** y = W·x + b, with W row by row. */
function makeLinear({ values, shape: [outputs, inputs] }, bias) {
  const whole = 4 * Math.ceil(outputs / 4); // the product makes four outputs at a time
  const weight = new Float32Array(whole * inputs);
  weight.set(values);
  return (x, rows) => {
    const sums = makeRows(rows, whole);
    addProduct(weight, inputs, whole, x, inputs, sums, rows);
    if (whole === outputs && !bias) return sums;
    const y = makeRows(rows, outputs);
    for (let r = 0; r < rows; r++)
      for (let o = 0; o < outputs; o++)
        y[r * outputs + o] = sums[r * whole + o] + (bias ? bias.values[o] : 0);
    return y;
  };
}

/** x/√(mean x² + ε) of the numbers from `from` on, in place. */
function scale(x, from, width, eps) {
  let square = 0;
  for (let j = from; j < from + width; j++) square += x[j] * x[j];
  const factor = 1 / Math.sqrt(square / width + eps);
  for (let j = from; j < from + width; j++) x[j] *= factor;
}

/** x/√(mean x² + ε); with a gain, x − mean x instead of x, times the gain, plus the bias. */
const makeNorm = (width, eps, gain, bias) => (x, rows) => {
  const y = x.slice();
  for (let from = 0; from < rows * width; from += width) {
    if (gain) {
      let mean = 0;
      for (let j = 0; j < width; j++) mean += y[from + j] / width;
      for (let j = 0; j < width; j++) y[from + j] -= mean;
    }
    scale(y, from, width, eps);
    if (gain)
      for (let j = 0; j < width; j++)
        y[from + j] = gain.values[j] * y[from + j] + bias.values[j];
  }
  return y;
};

const ACTIVATIONS = {
  gelu: (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v * v * v))),
  relu2: (v) => Math.max(v, 0) ** 2,
};

/** Turns the pairs (x_i, x_{i+d/2}) of a head by the angles of its place. */
function turnPairs(x, from, place, { cos, sin }, half) {
  for (let i = 0; i < half; i++) {
    const [c, s] = [cos[place * half + i], sin[place * half + i]];
    const [a, b] = [x[from + i], x[from + half + i]];
    x[from + i] = a * c - b * s;
    x[from + half + i] = a * s + b * c;
  }
}

/** Causal self-attention of the rows that come after those whose keys and values are `kept`. */
function makeAttention({ width, heads, qkNorm, eps, rotation }, into, out) {
  const size = width / heads; // of a head

  /** Normalises and turns queries and keys, the first two thirds of each row. */
  function prepare(x, rows, start) {
    for (let r = 0; r < rows; r++)
      for (let from = 3 * r * width; from < (3 * r + 2) * width; from += size) {
        if (qkNorm) scale(x, from, size, eps);
        if (rotation) turnPairs(x, from, start + r, rotation, size / 2);
      }
  }

  /** The weights of one head from one place, softmax_s(q·k_s/√d). */
  function look(q, from, keys, head, weights) {
    let most = -Infinity;
    for (let s = 0; s < weights.length; s++) {
      let score = 0;
      for (let j = 0; j < size; j++) score += q[from + j] * keys[s * width + head * size + j];
      weights[s] = score / Math.sqrt(size);
      most = Math.max(most, weights[s]);
    }
    let sum = 0;
    for (let s = 0; s < weights.length; s++) sum += weights[s] = Math.exp(weights[s] - most);
    for (let s = 0; s < weights.length; s++) weights[s] /= sum;
  }

  return (x, rows, { keys, values, attention }, start) => {
    const found = makeRows(rows, width);
    const qkv = into(x, rows);
    prepare(qkv, rows, start);
    for (let r = 0; r < rows; r++) {
      const [from, place] = [3 * r * width, start + r];
      keys.set(qkv.subarray(from + width, from + 2 * width), place * width);
      values.set(qkv.subarray(from + 2 * width, from + 3 * width), place * width);
      attention[place] = Array.from({ length: heads }, (_, head) => {
        const weights = new Float64Array(place + 1);
        look(qkv, from + head * size, keys, head, weights);
        for (let s = 0; s <= place; s++)
          for (let j = head * size; j < (head + 1) * size; j++)
            found[r * width + j] += weights[s] * values[s * width + j];
        return weights;
      });
    }
    return out(found, rows);
  };
}

const add = (x, y) => x.map((v, i) => v + y[i]);

const KEPT = 8; // windows of a text

// --- the network ---------------------------------------------------------------------------------

/**
 * The network. A window of the text has what was found so far: `length`, how many places; of each
 * block `keys`, `values` and `attention[place][head]`; `stream[l][place]`, the row after l blocks.
 *
 * Returns `open()`, an empty window; `extend(window, tokens)`, which takes in the next tokens; and
 * `predict(row)`, the logits of the next token.
 */
export function makeGPT(state, halves) {
  const { width, depth, block, eps } = state;
  const weights = named(state.weights, halves);
  const linear = (name) => makeLinear(weights[`${name}.weight`], weights[`${name}.bias`]);
  const norm = (name) => makeNorm(width, eps, weights[`${name}.weight`], weights[`${name}.bias`]);
  const activation = ACTIVATIONS[state.activation];
  const embedding = weights["tokens.weight"].values;
  const places = weights["places.weight"]?.values;
  const last = norm("norm");
  const head = makeLinear(weights["tokens.weight"]);

  const blocks = Array.from({ length: depth }, (_, i) => {
    const name = `blocks.${i}`;
    const [norm1, norm2] = [norm(`${name}.norm_1`), norm(`${name}.norm_2`)];
    const [into, out] = [linear(`${name}.mlp.into`), linear(`${name}.mlp.out`)];
    const attention = makeAttention(
      state, linear(`${name}.attention.into`), linear(`${name}.attention.out`));
    return (x, rows, kept, start) => {
      const h = add(x, attention(norm1(x, rows), rows, kept, start));
      return add(h, out(into(norm2(h, rows), rows).map(activation), rows));
    };
  });

  function embed(tokens, start) {
    const h = makeRows(tokens.length, width);
    tokens.forEach((token, r) => {
      for (let j = 0; j < width; j++)
        h[r * width + j] = embedding[token * width + j] + (places?.[(start + r) * width + j] ?? 0);
    });
    return h;
  }

  const open = () => ({
    length: 0,
    blocks: blocks.map(() => ({
      keys: new Float64Array(block * width),
      values: new Float64Array(block * width),
      attention: [],
    })),
    stream: Array.from({ length: depth + 1 }, () => []),
  });

  function extend(window, tokens) {
    const [rows, start] = [tokens.length, window.length];
    const note = (h, l) => {
      for (let r = 0; r < rows; r++)
        window.stream[l][start + r] = h.slice(r * width, (r + 2) * width); // and the one to spare
    };
    let h = embed(tokens, start);
    note(h, 0);
    blocks.forEach((run, i) => {
      h = run(h, rows, window.blocks[i], start);
      note(h, i + 1);
    });
    window.length += rows;
  }

  const predict = (row) => head(last(row, 1), 1).slice(0, weights["tokens.weight"].shape[0]);
  return { open, extend, predict };
}

/**
 * A text that grows and changes, window by window; what was found stays as long as it holds.
 *
 * Returns `set(tokens)`, `tokens()` and `look(place)`: the logits of the token after that place,
 * before the first block and after each, the attention of each block and head, and where their
 * window starts.
 */
export function openText(gpt, block) {
  let tokens = [];
  const windows = new Map(); // by their start

  function windowOf(place) {
    const start = windowStart(place + 1, block);
    if (!windows.has(start)) windows.set(start, gpt.open());
    if (windows.size > KEPT) windows.delete(windows.keys().next().value);
    const window = windows.get(start);
    const unseen = tokens.slice(start + window.length, place + 1);
    if (unseen.length) gpt.extend(window, unseen);
    return { window, start };
  }

  function set(next) {
    let same = 0;
    while (same < next.length && next[same] === tokens[same]) same++;
    tokens = next;
    for (const [start, window] of windows)
      window.length = Math.max(0, Math.min(window.length, same - start));
  }

  function look(place) {
    const { window, start } = windowOf(place);
    return {
      start,
      logits: window.stream.map((rows) => gpt.predict(rows[place - start])),
      attention: window.blocks.map(({ attention }) => attention[place - start]),
    };
  }

  return { set, look, tokens: () => tokens };
}
