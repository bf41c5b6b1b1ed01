// What every panel uses: words, encoded numbers, elements of the page, news of the size and theme.
// A page loads this file beside the panel; in JupyterLab it is put into the panel's own module
// (course_utils/live/panel.py).

/** The words of the page's language. */
export const inLanguage = (words) => words[document.documentElement.lang.slice(0, 2)] ?? words.en;

/** Base64 → bytes. */
export function decodeBytes(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** Base64 of little-endian float32 → numbers. */
export const decode = (text) => new Float32Array(decodeBytes(text).buffer);

/** Float16 as whole numbers of 16 bits → numbers. */
export function fromHalf(halves) {
  const numbers = new Float32Array(halves.length);
  halves.forEach((bits, i) => {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023; // a panel has 100,000 weights and more: no arrays here
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24;
    numbers[i] = bits >> 15 ? -size : size;
  });
  return numbers;
}

/** Base64 of little-endian float16 → numbers. */
export const decodeHalf = (text) => fromHalf(new Uint16Array(decodeBytes(text).buffer));

export const silu = (v) => v / (1 + Math.exp(-v));

/** Two independent numbers from N(0, 1), by Box and Muller; `random` gives numbers in [0, 1). */
export function normalPair(random = Math.random) {
  const radius = Math.sqrt(-2 * Math.log(1 - random()));
  const angle = 2 * Math.PI * random();
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}

/** Lets the page have its turn in the middle of some work. */
export const turn = () => new Promise((done) => { setTimeout(done); });

export function element(tag, properties, parent) {
  const node = Object.assign(document.createElement(tag), properties);
  parent.append(node);
  return node;
}

/** Calls `draw` when the size of `el` or the page's theme changes; returns how to stop that. */
export function redrawn(el, draw) {
  const resized = new ResizeObserver(draw);
  resized.observe(el);
  const themed = new MutationObserver(draw);
  themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  themed.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  return () => {
    resized.disconnect();
    themed.disconnect();
  };
}
