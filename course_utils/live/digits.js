// A panel that reads a digit which the reader draws: a convolutional network that runs here. The
// state is made by course_utils/live/digits.py.

import { decodeBytes, element, inLanguage, redrawn } from "./basics.js";
import { SIDE, eachFrame, follow, pictureFrame, sharpen } from "./images.js";
import { makeNetwork, softmax } from "./network.js";

const WORDS = {
  en: {
    pad: "Drawing area: draw a digit with the mouse, a finger or a pen",
    clear: "Clear",
    example: "An example",
    seen: "What the network sees",
    empty: "Draw a digit, or take an example.",
    verdict: (share) => `is what the network reads, with probability ${share}.`,
    truth: (digit) => `The example is a ${digit}.`,
    shares: "Probability of each digit",
  },
  he: {
    pad: "שטח לציור: ציירו ספרה בעכבר, באצבע או בעט",
    clear: "ניקוי",
    example: "דוגמה",
    seen: "מה שהרשת רואה",
    empty: "ציירו ספרה, או קחו דוגמה.",
    verdict: (share) => `זה מה שהרשת קוראת, בהסתברות ${share}.`,
    truth: (digit) => `בדוגמה כתוב ${digit}.`,
    shares: "ההסתברות של כל ספרה",
  },
};
const DIGITS = 10;

// --- the drawing and its image -------------------------------------------------------------------

const GRID = 280; // the drawing's ink is GRID × GRID numbers from 0 to 1, row by row
const PEN = 12; // the pen's radius, in points of the grid
const BOX = 20; // MNIST's digits fit a box of 20 × 20 pixels
const FAINT = 0.1; // ink below this does not count for the box

export const blankPaper = () => new Float32Array(GRID * GRID);

/** A line of ink between two points [x, y] of the grid, with soft edges. */
export function drawLine(ink, [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const square = dx * dx + dy * dy;
  const first = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - PEN - 1));
  const last = (a, b) => Math.min(GRID - 1, Math.ceil(Math.max(a, b) + PEN + 1));
  for (let y = first(ay, by); y <= last(ay, by); y++)
    for (let x = first(ax, bx); x <= last(ax, bx); x++) {
      const along = square && ((x + 0.5 - ax) * dx + (y + 0.5 - ay) * dy) / square;
      const near = Math.min(1, Math.max(0, along)); // the nearest place of the line, from 0 to 1
      const distance = Math.hypot(x + 0.5 - ax - near * dx, y + 0.5 - ay - near * dy);
      const cover = Math.min(1, PEN + 0.5 - distance);
      if (cover > ink[y * GRID + x]) ink[y * GRID + x] = cover;
    }
}

/** An image as ink: each pixel's centre keeps its level, between them it changes evenly. */
export function enlarged(image) {
  const ink = blankPaper();
  const level = (x, y) => (x >= 0 && x < SIDE && y >= 0 && y < SIDE ? image[y * SIDE + x] : 0);
  for (let row = 0; row < GRID; row++)
    for (let column = 0; column < GRID; column++) {
      const x = ((column + 0.5) * SIDE) / GRID - 0.5;
      const y = ((row + 0.5) * SIDE) / GRID - 0.5;
      const [left, top] = [Math.floor(x), Math.floor(y)];
      const [u, v] = [x - left, y - top];
      ink[row * GRID + column] =
        (1 - v) * ((1 - u) * level(left, top) + u * level(left + 1, top)) +
        v * ((1 - u) * level(left, top + 1) + u * level(left + 1, top + 1));
    }
  return ink;
}

/** The box around the ink and its centre of mass, or null if there is none. */
function measured(ink) {
  let left = GRID, right = 0, top = GRID, bottom = 0;
  let mass = 0, x = 0, y = 0;
  for (let row = 0; row < GRID; row++)
    for (let column = 0; column < GRID; column++) {
      const level = ink[row * GRID + column];
      mass += level;
      x += level * (column + 0.5);
      y += level * (row + 0.5);
      if (level < FAINT) continue;
      left = Math.min(left, column);
      right = Math.max(right, column + 1);
      top = Math.min(top, row);
      bottom = row + 1;
    }
  return right ? { size: Math.max(right - left, bottom - top), x: x / mass, y: y / mass } : null;
}

/** The mean level in each of SIDE stretches of a line, of length `step`, from `start` on. */
function means(line, start, step) {
  const sums = new Float64Array(GRID + 1); // the ink before each point
  for (let i = 0; i < GRID; i++) sums[i + 1] = sums[i] + line[i];
  const before = (place) => {
    const at = Math.min(GRID, Math.max(0, place));
    const whole = Math.floor(at);
    return sums[whole] + (at > whole ? (at - whole) * line[whole] : 0);
  };
  return Float32Array.from({ length: SIDE }, (_, k) =>
    (before(start + (k + 1) * step) - before(start + k * step)) / step);
}

/**
 * The image that MNIST would make of the ink, or null if there is none: scaled to fit a box of
 * 20 × 20 pixels, each pixel the mean of the ink in it, the centre of mass in the middle.
 */
export function digitImage(ink) {
  const found = measured(ink);
  if (!found) return null;
  const step = found.size / BOX; // points of the grid to a pixel
  const edge = (centre) => centre - (step * SIDE) / 2;
  const narrow = Array.from({ length: GRID }, (_, row) =>
    means(ink.subarray(row * GRID, (row + 1) * GRID), edge(found.x), step));
  const image = new Float32Array(SIDE * SIDE);
  for (let column = 0; column < SIDE; column++)
    means(narrow.map((row) => row[column]), edge(found.y), step).forEach((level, row) => {
      image[row * SIDE + column] = level;
    });
  return image;
}

// --- the classifier ------------------------------------------------------------------------------

/** An image → the probability of each digit. */
export function makeClassifier(state) {
  const network = makeNetwork(state.layers, [1, SIDE, SIDE]);
  return (image) => softmax(network(image));
}

// --- the panel -----------------------------------------------------------------------------------

/** The pad; `changed` hears of ink. Returns its canvas, `fill(ink)` and `close()`. */
function openPad(el, words, parent, changed, pause) {
  const canvas = element("canvas", { className: "live-surface" }, parent);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words.pad);
  const mask = element("canvas", { width: GRID, height: GRID }, document.createElement("div"));
  const maskPen = mask.getContext("2d");
  let ink = blankPaper();
  let last = null;

  function draw() {
    sharpen(canvas);
    const pixels = maskPen.createImageData(GRID, GRID);
    ink.forEach((level, i) => { pixels.data[4 * i + 3] = 255 * level; });
    maskPen.putImageData(pixels, 0, 0);
    const pen = canvas.getContext("2d");
    const side = canvas.width;
    pen.globalCompositeOperation = "copy";
    pen.drawImage(mask, 0, 0, side, side);
    pen.globalCompositeOperation = "source-in"; // the colour, where there is ink
    pen.fillStyle = getComputedStyle(el).getPropertyValue("--live-ink");
    pen.fillRect(0, 0, side, side);
  }

  const frame = eachFrame(() => {
    draw();
    changed(ink);
  });
  const lineTo = (place) => {
    const next = place.map((share) => share * GRID);
    drawLine(ink, last ?? next, next);
    last = next;
    frame.ask();
  };
  follow(canvas, {
    start(place) {
      last = null;
      pause(true);
      lineTo(place);
    },
    move: lineTo,
    end: () => pause(false),
  });
  const stopWatching = redrawn(el, draw);
  return {
    fill(newInk) {
      frame.cancel();
      ink = newInk;
      draw();
    },
    close() {
      frame.cancel();
      stopWatching();
    },
  };
}

/** A probability in percent; what is not quite 1 does not look like 1. */
function percent(share) {
  const text = share > 0.9995 ? ">99.9%" : `${(100 * share).toFixed(1)}%`;
  return `\u2066${text}\u2069`; // from left to right
}

/** A bar for each digit; returns `show(probabilities)`, where null empties them. */
function openBars(title, parent) {
  const list = element("ul", { className: "live-bars" }, parent);
  list.setAttribute("aria-label", title);
  const rows = Array.from({ length: DIGITS }, (_, digit) => {
    const row = element("li", {}, list);
    element("span", { textContent: digit }, row);
    const bar = element("i", {}, element("span", { className: "live-bar" }, row));
    return { row, bar, share: element("span", { className: "live-share" }, row) };
  });
  return (shares) => {
    const largest = shares && Math.max(...shares);
    rows.forEach(({ row, bar, share }, digit) => {
      const value = shares?.[digit] ?? 0;
      bar.style.inlineSize = `${100 * value}%`;
      share.textContent = shares ? percent(value) : "";
      row.toggleAttribute("data-first", value > 0 && value === largest);
    });
  };
}

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
    showSeen(image ?? new Float32Array(SIDE * SIDE));
    const shares = image && classify(image);
    showBars(shares);
    verdict.replaceChildren();
    if (!shares) return verdict.append(words.empty);
    const largest = Math.max(...shares);
    element("strong", { textContent: shares.indexOf(largest) }, verdict);
    verdict.append(words.verdict(percent(largest)));
    if (truth !== null) verdict.append(` ${words.truth(truth)}`);
  }

  // A verdict that changes while the pen moves is not for the ear.
  const pause = (paused) => verdict.setAttribute("aria-busy", paused);
  const pad = openPad(el, words, drawing, (ink) => read(digitImage(ink)), pause);
  const buttons = element("div", { className: "live-controls" }, drawing);
  const button = (text, pressed) =>
    element("button", { type: "button", textContent: text }, buttons)
      .addEventListener("click", pressed);
  button(words.clear, () => {
    pad.fill(blankPaper());
    read(null);
  });
  const examples = decodeBytes(state.examples);
  let next = 0;
  if (state.labels.length > 0)
    button(words.example, () => {
      const start = next * SIDE * SIDE;
      const image = Float32Array.from(examples.subarray(start, start + SIDE * SIDE), (v) => v / 255);
      pad.fill(enlarged(image));
      read(image, state.labels[next]);
      next = (next + 1) % state.labels.length;
    });
  read(null);
  return pad.close;
}

export default { render };
