// The colours of coloured MNIST: their names, and which of them an image has. The state is made by
// course_utils/live/colours.py, the formulas are those of course_utils/data/colours.py.

import { decode, inLanguage } from "./basics.js";
import { PIXELS } from "./images.js";

const COLOUR_WORDS = {
  en: {},
  he: {
    red: "אדום",
    orange: "כתום",
    yellow: "צהוב",
    green: "ירוק",
    turquoise: "טורקיז",
    "sky blue": "תכלת",
    blue: "כחול",
    purple: "סגול",
    pink: "ורוד",
    white: "לבן",
  },
};

/** The colours, each { name, light, paint }: light as [red, green, blue] from 0 to 1. */
export function makeColours({ names, light }) {
  const words = inLanguage(COLOUR_WORDS);
  const values = decode(light);
  return names.map((name, i) => {
    const rgb = [...values.subarray(3 * i, 3 * i + 3)];
    const paint = `rgb(${rgb.map((v) => Math.round(255 * v)).join(" ")})`;
    return { name: words[name] ?? name, light: rgb, paint };
  });
}

/** g ⊗ c: a grey image in a colour. */
export function tint(grey, { light }) {
  const image = new Float32Array(3 * PIXELS);
  light.forEach((share, k) => grey.forEach((g, p) => { image[k * PIXELS + p] = share * g; }));
  return image;
}

/** The place among `colours` of that which is nearest to the image's, −1 if it is too dark. */
export function nearestColour(image, colours, dark) {
  let level = 0;
  let square = 0;
  const sums = [0, 0, 0];
  for (let p = 0; p < PIXELS; p++) {
    const pixel = [image[p], image[PIXELS + p], image[2 * PIXELS + p]];
    const grey = Math.max(...pixel);
    level += grey;
    square += grey * grey;
    pixel.forEach((v, k) => { sums[k] += grey * v; });
  }
  if (level / PIXELS < dark) return -1;
  const far = colours.map(({ light }) =>
    Math.hypot(...light.map((share, k) => share - sums[k] / square)));
  return far.indexOf(Math.min(...far));
}
