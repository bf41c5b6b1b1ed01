// The product of a matrix and many vectors, which takes most of the time of a network.

/**
 * y += W·x for each of the first `rows` rows of x and y, two rows and four outputs at a time: eight
 * sums then stay in registers, several times faster than one. An odd last row brings the next
 * along.
 */
export function addProduct(weight, inputs, outputs, x, stride, y, rows) {
  for (let row = 0; row < rows; row += 2) {
    const first = row * stride;
    const second = first + stride;
    for (let out = 0; out < outputs; out += 4) {
      const [w0, at] = [out * inputs, row * outputs + out];
      const [w1, w2, w3] = [w0 + inputs, w0 + 2 * inputs, w0 + 3 * inputs];
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      for (let j = 0; j < inputs; j++) {
        const a = x[first + j];
        const b = x[second + j];
        const v0 = weight[w0 + j], v1 = weight[w1 + j], v2 = weight[w2 + j], v3 = weight[w3 + j];
        a0 += v0 * a; a1 += v1 * a; a2 += v2 * a; a3 += v3 * a;
        b0 += v0 * b; b1 += v1 * b; b2 += v2 * b; b3 += v3 * b;
      }
      y[at] += a0; y[at + 1] += a1; y[at + 2] += a2; y[at + 3] += a3;
      const next = at + outputs;
      y[next] += b0; y[next + 1] += b1; y[next + 2] += b2; y[next + 3] += b3;
    }
  }
}
