// A panel that reads a digit which the reader draws: a convolutional network that runs here. The
// state is made by course_utils/live/digits.py.

import { openBars, percent } from "./bars.js";
import { element, inLanguage } from "./basics.js";
import { PIXELS, SIDE, decodeGrey, pictureFrame } from "./images.js";
import { makeNetwork, softmax } from "./network.js";
import { openPad } from "./pad.js";

const WORDS = {
  en: {
    example: "An example",
    seen: "What the network sees",
    empty: "Draw a digit, or take an example.",
    verdict: (share) => `is what the network reads, with probability ${share}.`,
    truth: (digit) => `The example is a ${digit}.`,
    shares: "Probability of each digit",
  },
  he: {
    example: "דוגמה",
    seen: "מה שהרשת רואה",
    empty: "ציירו ספרה, או קחו דוגמה.",
    verdict: (share) => `זה מה שהרשת קוראת, בהסתברות ${share}.`,
    truth: (digit) => `בדוגמה כתוב ${digit}.`,
    shares: "ההסתברות של כל ספרה",
  },
};
const DIGITS = 10;

// --- the classifier ------------------------------------------------------------------------------

/** An image → the probability of each digit. */
export function makeClassifier(state) {
  const network = makeNetwork(state.layers, [1, SIDE, SIDE]);
  return (image) => softmax(network(image));
}

// --- the panel -----------------------------------------------------------------------------------

function render({ model, el }) {
  const state = model.get("state");
  const words = inLanguage(WORDS);
  const classify = makeClassifier(state);

  el.classList.add("live-stage");
  const sides = element("div", { className: "live-sides" }, el);
  const drawing = element("div", { className: "live-drawing" }, sides);
  const reading = element("div", { className: "live-reading" }, sides);
  const head = element("div", { className: "live-seen" }, reading);
  const showSeen = pictureFrame(words.seen, head);
  const verdict = element("output", { className: "live-verdict" }, head);
  verdict.setAttribute("aria-live", "polite");
  const showBars = openBars(words.shares, reading);

  /** Reads an image; null: there is none. `truth` is the digit that an example shows. */
  function read(image, truth = null) {
    showSeen(image ?? new Float32Array(PIXELS));
    const shares = image && classify(image);
    const digits = Array.from({ length: DIGITS }, (_, digit) => digit);
    showBars(digits.map((digit) => ({ name: digit, share: shares?.[digit] })));
    verdict.replaceChildren();
    if (!shares) return verdict.append(words.empty);
    const largest = Math.max(...shares);
    element("strong", { textContent: shares.indexOf(largest) }, verdict);
    verdict.append(words.verdict(percent(largest)));
    if (truth !== null) verdict.append(` ${words.truth(truth)}`);
  }

  // A verdict that changes while the pen moves is not for the ear.
  const pause = (moving) => verdict.setAttribute("aria-busy", moving);
  const pad = openPad(drawing, (image) => read(image), pause);
  const examples = decodeGrey(state.examples);
  let next = 0;
  if (examples.length > 0) {
    const example = { type: "button", textContent: words.example };
    element("button", example, pad.buttons).addEventListener("click", () => {
      pad.show(examples[next]);
      read(examples[next], state.labels[next]);
      next = (next + 1) % examples.length;
    });
  }
  read(null);
  return pad.close;
}

export default { render };
