// A pad to draw a digit on, and the image that MNIST would make of the drawing.

import { element, inLanguage, redrawn } from "./basics.js";
import { PIXELS, SIDE, eachFrame, follow, sharpen } from "./images.js";

const PAD_WORDS = {
  en: {
    pad: "Drawing area: draw a digit with the mouse, a finger or a pen",
    clear: "Clear",
  },
  he: {
    pad: "שטח לציור: ציירו ספרה בעכבר, באצבע או בעט",
    clear: "ניקוי",
  },
};

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
  const image = new Float32Array(PIXELS);
  for (let column = 0; column < SIDE; column++)
    means(narrow.map((row) => row[column]), edge(found.y), step).forEach((level, row) => {
      image[row * SIDE + column] = level;
    });
  return image;
}

// --- the pad -------------------------------------------------------------------------------------

/**
 * The pad, with a button that clears it. `changed(image)` hears of the drawing's image, null if
 * there is none, and `pause(moving)` of a pen that comes down or is lifted.
 *
 * Returns `show(image)`, which puts an image's ink on the pad, `canvas`, `buttons`, where there is
 * room for more of them, `draw()`, for when the pad's colours have changed, and `close()`.
 */
export function openPad(parent, changed, pause) {
  const words = inLanguage(PAD_WORDS);
  const canvas = element("canvas", { className: "live-surface" }, parent);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words.pad);
  const buttons = element("div", { className: "live-controls" }, parent);
  const clear = element("button", { type: "button", textContent: words.clear }, buttons);
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
    pen.fillStyle = getComputedStyle(canvas).getPropertyValue("--live-ink");
    pen.fillRect(0, 0, side, side);
  }

  const frame = eachFrame(() => {
    draw();
    changed(digitImage(ink));
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
    end() {
      pause(false);
      frame.ask();
    },
  });
  function fill(newInk) {
    frame.cancel();
    ink = newInk;
    draw();
  }
  clear.addEventListener("click", () => {
    fill(blankPaper());
    changed(null);
  });
  const stopWatching = redrawn(parent, draw);
  return {
    show: (image) => fill(enlarged(image)),
    canvas,
    buttons,
    draw,
    close() {
      frame.cancel();
      stopWatching();
    },
  };
}
