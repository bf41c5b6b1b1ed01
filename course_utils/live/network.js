// Networks of images, one layer after the other: the state is made by course_utils/live/network.py.
// What runs through a network is { values, shape }: an image's values channel by channel, row by
// row, with the shape [channels, height, width], or a vector's with the shape [length].

import { decodeHalf, silu } from "./basics.js";
import { addProduct } from "./product.js";

const pointwise = (f) => () => ({ values, shape }) => ({ values: values.map(f), shape });

/** y = W·x + b, with W row by row. */
const linear = ({ weight, bias }) => ({ values }) => {
  const inputs = values.length;
  const sums = bias.map((b, row) => {
    let sum = b;
    for (let j = 0; j < inputs; j++) sum += weight[row * inputs + j] * values[j];
    return sum;
  });
  return { values: sums, shape: [sums.length] };
};

/** What the kernel sees at each place of its output, one place after the other; zeros outside. */
function patches({ values, shape: [ins, height, width] }, rows, columns, settings) {
  const { shape: [, , high, across], stride, padding } = settings;
  const size = ins * high * across;
  const all = new Float64Array((rows * columns + 1) * size); // a row to spare, for the product
  let to = 0;
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++)
      for (let i = 0; i < ins; i++)
        for (let u = 0; u < high; u++) {
          const y = r * stride + u - padding;
          const row = (i * height + y) * width;
          for (let v = 0; v < across; v++, to++) {
            const x = c * stride + v - padding;
            if (y >= 0 && y < height && x >= 0 && x < width) all[to] = values[row + x];
          }
        }
  return all;
}

/** y[o, r, c] = b[o] + Σ w[o, i, u, v] · x[i, r·stride + u − padding, c·stride + v − padding] */
function conv({ weight, bias, ...settings }) {
  const { shape: [outs, ins, high, across], stride, padding } = settings;
  const size = ins * high * across;
  const whole = 4 * Math.ceil(outs / 4); // the product makes four outputs at a time
  const filled = new Float64Array(whole * size);
  filled.set(weight);
  return (x) => {
    const rows = Math.floor((x.shape[1] + 2 * padding - high) / stride) + 1;
    const columns = Math.floor((x.shape[2] + 2 * padding - across) / stride) + 1;
    const places = rows * columns;
    const sums = new Float64Array((places + 1) * whole);
    addProduct(filled, size, whole, patches(x, rows, columns, settings), size, sums, places);
    const values = new Float32Array(outs * places);
    for (let o = 0; o < outs; o++)
      for (let place = 0; place < places; place++)
        values[o * places + place] = bias[o] + sums[place * whole + o];
    return { values, shape: [outs, rows, columns] };
  };
}

/** The transpose of `conv`: x[i, r, c] adds w[i, o, u, v]·x to y[o, r·stride + u − padding, …]. */
const deconv = ({ weight, bias, shape: [ins, outs, high, across], stride, padding }) => (x) => {
  const { values, shape: [, height, width] } = x;
  const rows = (height - 1) * stride + high - 2 * padding;
  const columns = (width - 1) * stride + across - 2 * padding;
  const sums = new Float32Array(outs * rows * columns);
  for (let o = 0; o < outs; o++) sums.fill(bias[o], o * rows * columns, (o + 1) * rows * columns);
  let next = 0; // the weights in the order in which they are stored
  for (let i = 0; i < ins; i++)
    for (let o = 0; o < outs; o++)
      for (let u = 0; u < high; u++)
        for (let v = 0; v < across; v++) {
          const w = weight[next++];
          for (let r = 0; r < height; r++) {
            const row = r * stride + u - padding;
            if (row < 0 || row >= rows) continue;
            for (let c = 0; c < width; c++) {
              const column = c * stride + v - padding;
              if (column < 0 || column >= columns) continue;
              sums[(o * rows + row) * columns + column] += w * values[(i * height + r) * width + c];
            }
          }
        }
  return { values: sums, shape: [outs, rows, columns] };
};

/** The largest value of each square of `size`; what is left over at the edges is dropped. */
const maxpool = ({ size }) => ({ values, shape: [channels, height, width] }) => {
  const [rows, columns] = [Math.floor(height / size), Math.floor(width / size)];
  const largest = new Float32Array(channels * rows * columns).fill(-Infinity);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < rows * size; y++)
      for (let x = 0; x < columns * size; x++) {
        const to = (c * rows + Math.floor(y / size)) * columns + Math.floor(x / size);
        largest[to] = Math.max(largest[to], values[(c * height + y) * width + x]);
      }
  return { values: largest, shape: [channels, rows, columns] };
};

const LAYERS = {
  linear,
  conv,
  deconv,
  maxpool,
  relu: pointwise((v) => Math.max(v, 0)),
  silu: pointwise(silu),
  sigmoid: pointwise((v) => 1 / (1 + Math.exp(-v))),
  flatten: () => ({ values }) => ({ values, shape: [values.length] }),
  unflatten: ({ shape }) => ({ values }) => ({ values, shape }),
};

/**
 * The network as a function: numbers of this shape → numbers. `read` gives the values of what the
 * state has for a weight or a bias: their base64, or how many come next where they lie apart.
 */
export function makeNetwork(state, shape, read = decodeHalf) {
  const layers = state.map(({ kind, weight, bias, ...settings }) =>
    LAYERS[kind](weight ? { weight: read(weight), bias: read(bias), ...settings } : settings));
  return (input) =>
    layers.reduce((x, layer) => layer(x), { values: Float32Array.from(input), shape }).values;
}

export function softmax(logits) {
  const largest = Math.max(...logits);
  const weights = Array.from(logits, (v) => Math.exp(v - largest));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum);
}
