// A panel on a decoder whose latent has a part for the digit, one for the colour, and the rest for the
// style. The state is made by course_utils/live/joint.py.

import { decode, element, inLanguage, normalPair } from "./basics.js";
import { openChoice } from "./choice.js";
import { makeColours } from "./colours.js";
import { eachFrame, pictureFrame } from "./images.js";
import { makeNetwork } from "./network.js";
import { openStrip } from "./strip.js";

const WORDS = {
  en: {
    image: "The decoder’s image",
    digit: "Digit",
    colour: "Colour",
    style: "Style",
    renew: "New style",
    chosen: (digit, colour) => `Digit ${digit}, ${colour}`,
  },
  he: {
    image: "התמונה שהמפענח יוצר",
    digit: "ספרה",
    colour: "צבע",
    style: "סגנון",
    renew: "סגנון חדש",
    chosen: (digit, colour) => `הספרה ${digit}, ${colour}`,
  },
};
const FAR = 3; // a slider's ends: nearly all of N(0, 1)

/** The rows of a dial, one for each of its positions. */
function positions({ places, rows }) {
  const values = decode(rows);
  return Array.from({ length: values.length / places.length }, (_, i) =>
    values.subarray(i * places.length, (i + 1) * places.length));
}

/** Positions of the two dials and a style → the image. */
export function makeJoint(state) {
  const network = makeNetwork(state.layers, [state.latent]);
  const dials = [state.digit, state.colour].map((dial) => ({ ...dial, rows: positions(dial) }));
  return (digit, colour, style) => {
    const latent = Float32Array.from(style);
    [digit, colour].forEach((position, i) => {
      const { places, rows } = dials[i];
      places.forEach((place, j) => { latent[place] = rows[position][j]; });
    });
    return network(latent);
  };
}

/** z ~ N(0, I); what is beyond the sliders' ends is put there. */
const drawStyle = (length) =>
  Float32Array.from({ length }, () => Math.min(FAR, Math.max(-FAR, normalPair()[0])));

/** The names of a dial's positions: a second one that stands for the same has a prime, and so on. */
const distinct = (names) =>
  names.map((name, i) => name + "′".repeat(names.slice(0, i).filter((n) => n === name).length));

const subscript = (number) =>
  String(number).replace(/./g, (digit) => String.fromCharCode(0x2080 + Number(digit)));

/** A slider for a number of the style; returns `set(value)`. */
function openSlider(name, parent, changed) {
  const box = element("div", { className: "live-time" }, parent);
  const title = element("label", {}, box);
  element("span", { textContent: name }, title);
  const range = { type: "range", min: -FAR, max: FAR, step: 0.05 };
  const slider = element("input", range, title);
  const shown = element("span", { className: "live-value" }, box);
  const tell = () => { shown.textContent = Number(slider.value).toFixed(2).replace("-", "−"); };
  slider.addEventListener("input", () => {
    tell();
    changed(Number(slider.value));
  });
  return (value) => {
    slider.value = value;
    tell();
  };
}

function render({ model, el }) {
  const state = model.get("state");
  const words = inLanguage(WORDS);
  const decoder = makeJoint(state);
  const colours = makeColours(state.palette);
  const digits = distinct(state.digit.stands_for.map(String));
  const paints = state.colour.stands_for.map((place) => colours[place]);
  const names = distinct(paints.map(({ name }) => name));

  el.classList.add("live-stage");
  const sides = element("div", { className: "live-sides" }, el);
  const made = element("div", { className: "live-made" }, sides);
  const showImage = pictureFrame(words.image, made);
  const about = element("div", {}, made);
  const chosen = element("output", {}, about);
  const dials = element("div", { className: "live-dials" }, sides);

  let [digit, colour] = [0, 0];
  let style = new Float32Array(state.latent); // the middle of N(0, I)
  function show() {
    const images = digits.map((_, i) => decoder(i, colour, style));
    strip.show(images);
    showImage(images[digit]);
    chosen.textContent = words.chosen(digits[digit], names[colour]);
  }
  const frame = eachFrame(show);

  const strip = openStrip(words.digit, digits, dials, (i) => {
    digit = i;
    frame.ask();
  });
  const options = paints.map(({ paint }, i) => ({ text: names[i], paint, edge: "var(--live-outline)" }));
  const swatches = openChoice(words.colour, options, dials, (i) => {
    colour = i;
    frame.ask();
  });

  /** What changes the style, which is all that no dial sets. */
  function addStyle() {
    const buttons = element("div", { className: "live-controls" }, about);
    const renew = element("button", { type: "button", textContent: words.renew }, buttons);
    const setters = state.sliders.length ? addSliders() : [];
    renew.addEventListener("click", () => {
      style = drawStyle(state.latent);
      for (const set of setters) set();
      frame.ask();
    });
  }

  function addSliders() {
    const box = element("fieldset", { className: "live-controls live-sliders" }, dials);
    element("legend", { textContent: words.style }, box);
    return state.sliders.map(([place, number]) => {
      const set = openSlider(`z${subscript(number)}`, box, (value) => {
        style[place] = value;
        frame.ask();
      });
      set(0);
      return () => set(style[place]);
    });
  }

  if (state.latent > state.digit.places.length + state.colour.places.length) addStyle();
  strip.choose(digit);
  swatches.choose(colour);
  show();
  return frame.cancel;
}

export default { render };
