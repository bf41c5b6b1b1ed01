// A panel that carries a digit's image from one domain of colours to the other and back: two
// generators run here. The state is made by course_utils/live/translation.py.

import { element, inLanguage, turn } from "./basics.js";
import { addDot, openChoice } from "./choice.js";
import { makeColours, nearestColour, tint } from "./colours.js";
import { PIXELS, SIDE, decodeGrey, pictureFrame } from "./images.js";
import { makeNetwork } from "./network.js";
import { openPad } from "./pad.js";
import { openStrip } from "./strip.js";

const WORDS = {
  en: {
    example: "Take a digit, or draw one",
    colour: "Its colour",
    names: ["\u2066x\u2069, in A", "\u2066G(x)\u2069, in B", "\u2066F(G(x))\u2069, back in A"],
    owner: (digit, domain) => `the colour of ${digit} in ${domain}`,
    none: "too dark to have a colour",
    empty: "no digit",
  },
  he: {
    example: "קחו ספרה, או ציירו אחת",
    colour: "הצבע שלה",
    names: ["\u2066x\u2069, ב־A", "\u2066G(x)\u2069, ב־B", "\u2066F(G(x))\u2069, שוב ב־A"],
    owner: (digit, domain) => `הצבע של ${digit} ב־${domain}`,
    none: "כהה מכדי שיהיה לה צבע",
    empty: "אין ספרה",
  },
};

/** G and F: coloured images to coloured images. */
export function makeTranslation(state) {
  const shape = [3, SIDE, SIDE];
  return [makeNetwork(state.to_b, shape), makeNetwork(state.to_a, shape)];
}

/** A place for one image of the three, of a domain with its rule; returns `show(image)`. */
function openStop(title, [domain, rule], colours, dark, words, parent) {
  const stop = element("div", { className: "live-stop" }, parent);
  const showImage = pictureFrame(title, stop);
  const said = element("output", {}, stop);
  return (image) => {
    showImage(image ?? new Float32Array(PIXELS));
    said.replaceChildren();
    if (!image) return said.append(words.empty);
    const found = nearestColour(image, colours, dark);
    if (found < 0) return said.append(words.none);
    const { name, paint } = colours[found];
    const named = element("strong", {}, said);
    addDot(paint, "var(--live-outline)", named);
    named.append(name);
    const digit = rule.indexOf(found);
    if (digit >= 0) element("span", { textContent: words.owner(digit, domain) }, said);
  };
}

function render({ model, el }) {
  const state = model.get("state");
  const words = inLanguage(WORDS);
  const colours = makeColours(state.palette);
  const [toB, toA] = makeTranslation(state);
  const read = state.classifier.length ? makeNetwork(state.classifier, [1, SIDE, SIDE]) : null;
  const [ruleA, ruleB] = state.rules;
  const examples = decodeGrey(state.examples);

  el.classList.add("live-stage");
  const sides = element("div", { className: "live-sides" }, el);
  const drawing = element("div", { className: "live-drawing live-tinted" }, sides);
  const choices = element("div", { className: "live-dials" }, sides);
  const stops = element("div", { className: "live-stops" }, sides);
  const [a, b] = [["A", ruleA], ["B", ruleB]];
  const show = [a, b, a].map((domain, i) =>
    openStop(words.names[i], domain, colours, state.palette.dark, words, stops));

  let grey = null; // the digit's image
  let colour = 0;
  let chosen = false; // the colour, by the reader
  let moving = false; // the pen

  let job = 0;
  async function translate() {
    const mine = ++job;
    const x = grey && tint(grey, colours[colour]);
    show[0](x);
    stops.setAttribute("aria-busy", "true");
    const found = [x];
    for (const network of [toB, toA]) {
      await turn();
      if (mine !== job) return; // a newer image has replaced this one
      found.push(x && network(found.at(-1)));
      show[found.length - 1](found.at(-1));
    }
    stops.setAttribute("aria-busy", moving);
  }

  function paint(next) {
    colour = next;
    swatches.choose(colour);
    pad.canvas.style.setProperty("--live-ink", colours[colour].paint);
    pad.draw();
  }

  /** A drawing. Once the pen is lifted it has its digit's colour, if the reader chose none. */
  function drawn(image) {
    strip.choose(-1);
    if (!image) chosen = false;
    grey = image;
    if (image && read && !moving && !chosen) {
      const logits = read(image);
      paint(ruleA[logits.indexOf(Math.max(...logits))]);
    }
    translate();
  }

  function take(i) {
    grey = examples[i];
    chosen = false;
    pad.show(grey);
    paint(ruleA[state.labels[i]]);
    translate();
  }

  const pad = openPad(drawing, drawn, (pressed) => {
    moving = pressed;
    if (pressed) stops.setAttribute("aria-busy", "true");
  });
  const strip = openStrip(words.example, state.labels.map(String), choices, take);
  strip.show(examples.map((image, i) => tint(image, colours[ruleA[state.labels[i]]])));
  const options = colours.map(({ name, paint }) => ({ text: name, paint, edge: "var(--live-outline)" }));
  const swatches = openChoice(words.colour, options, choices, (i) => {
    chosen = true;
    paint(i);
    translate();
  });
  strip.choose(0);
  take(0);
  return () => {
    job++;
    pad.close();
  };
}

export default { render };
