// A panel with a map of a two-dimensional latent z: a decoder that runs here makes an image of the
// point that the reader moves. The state is made by course_utils/live/latent.py.

import { decodeHalf, element, inLanguage, normalPair, redrawn } from "./basics.js";
import { addDot, openChoice } from "./choice.js";
import { makeColours } from "./colours.js";
import { SIDE, eachFrame, follow, pictureFrame, sharpen } from "./images.js";
import { makeNetwork } from "./network.js";

const WORDS = {
  en: {
    map: "Map of the latent z",
    kind: "point on a map",
    image: "The decoder’s image of z",
    hint: "Drag the point, or use the arrow keys.",
    random: "A random z",
    dots: "The dots show",
    by: { digit: "digits", colour: "colours" },
  },
  he: {
    map: "מפה של המשתנה החבוי z",
    kind: "נקודה על מפה",
    image: "התמונה שהמפענח יוצר מ־z",
    hint: "גררו את הנקודה, או השתמשו במקשי החצים.",
    random: "z אקראי",
    dots: "הנקודות מראות",
    by: { digit: "ספרות", colour: "צבעים" },
  },
};
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
const STEPS = 60; // of an arrow key, from one side of the map to the other
const DIGITS = 10;

/** z = [z₁, z₂] → the image. */
export const makeDecoder = (state) => makeNetwork(state.layers, [2]);

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** For each of some groups its dots on the map, and the middle of them. */
function clouds({ low, high, dots }, member, groups) {
  const places = decodeHalf(dots.z);
  const inside = (value) => low <= value && value <= high;
  const found = groups.map((group) => ({ ...group, x: [], y: [] }));
  member.forEach((group, i) => {
    const [x, y] = places.subarray(2 * i, 2 * i + 2);
    if (!inside(x) || !inside(y)) return;
    found[group].x.push(x);
    found[group].y.push(y);
  });
  return found
    .filter(({ x }) => x.length > 0)
    .map((cloud) => ({ ...cloud, middle: [median(cloud.x), median(cloud.y)] }));
}

/**
 * What the dots can show: the digits of the images and, where the state has them, their colours. Each
 * has groups { name, paint }, whose colour is --live-<paint> in the styles.
 */
function makeViews(el, { dots, palette, ...state }) {
  const digits = Array.from({ length: DIGITS }, (_, digit) =>
    ({ name: digit, paint: `digit-${digit}` }));
  const digit = { groups: clouds({ dots, ...state }, dots.label, digits), named: true, alpha: 0.5 };
  if (!palette) return { digit };
  const colours = makeColours(palette).map(({ name, paint }, i) => {
    el.style.setProperty(`--live-colour-${i}`, paint);
    return { name, paint: `colour-${i}` };
  });
  const groups = clouds({ dots, ...state }, dots.colour, colours);
  return { digit, colour: { groups, named: false, alpha: 0.8 } }; // the names would cover each other
}

/** The colour of each group, with its name. */
function addLegend(groups, title, parent) {
  const list = element("ul", { className: "live-legend" }, parent);
  list.setAttribute("aria-label", title);
  for (const { name, paint } of groups) {
    const item = element("li", {}, list);
    addDot(`var(--live-${paint})`, "var(--live-outline)", item);
    item.append(name);
  }
  return list;
}

/** Draws the map on `canvas`: axes, dots, the names of their groups, and the point z. */
function drawMap(canvas, { low, high }, { groups, named, alpha }, z) {
  const ratio = sharpen(canvas);
  const side = canvas.width;
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--live-${name}`);
  const across = (value) => ((value - low) / (high - low)) * side;
  const up = (value) => side - across(value);
  const line = (...ends) => {
    pen.beginPath();
    for (const [x, y] of ends) pen.lineTo(x, y);
    pen.stroke();
  };
  const dot = (x, y, radius) => {
    pen.beginPath();
    pen.arc(across(x), up(y), radius * ratio, 0, 2 * Math.PI);
  };
  const write = (text, x, y) => {
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  };
  const type = (size) => `${size * ratio}px ${style.fontFamily}`;

  pen.clearRect(0, 0, side, side);
  pen.lineWidth = ratio;
  pen.strokeStyle = colour("edge");
  line([across(0), 0], [across(0), side]);
  line([0, up(0)], [side, up(0)]);

  pen.globalAlpha = alpha;
  for (const { paint, x, y } of groups) {
    pen.fillStyle = colour(paint);
    x.forEach((value, i) => {
      dot(value, y[i], 2);
      pen.fill();
    });
  }
  pen.globalAlpha = 1;

  // Words have a rim of paper around them.
  pen.strokeStyle = colour("paper");
  pen.lineJoin = "round";
  pen.lineWidth = 4 * ratio;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.font = `bold ${type(17)}`;
  for (const { name, paint, middle: [x, y] } of named ? groups : []) {
    pen.fillStyle = colour(paint);
    write(name, across(x), up(y));
  }
  pen.fillStyle = colour("ink");
  pen.font = type(13);
  const margin = 14 * ratio;
  const step = 2 ** Math.max(0, Math.ceil(Math.log2((high - low) / 8))); // 8 numbers or fewer
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    if (across(value) < margin || across(value) > side - 2 * margin) continue;
    const text = `${value}`.replace("-", "−");
    write(text, across(value), side - margin);
    if (across(value) > 2 * margin) write(text, margin, up(value));
  }
  write("z₁", side - margin, side - margin);
  write("z₂", margin, margin);

  const [x, y] = [across(z[0]), up(z[1])];
  pen.strokeStyle = colour("ink");
  pen.lineWidth = ratio;
  line([x, 0], [x, side]);
  line([0, y], [side, y]);
  dot(...z, 8);
  pen.fillStyle = colour("paper");
  pen.fill();
  pen.lineWidth = 3 * ratio;
  pen.stroke();
}

function render({ model, el }) {
  const state = model.get("state");
  const { low, high } = state;
  const words = inLanguage(WORDS);
  const decoder = makeDecoder(state);
  const views = makeViews(el, state);
  const within = (value) => Math.min(high, Math.max(low, value));

  el.classList.add("live-stage");
  const sides = element("div", { className: "live-sides" }, el);
  const place = element("div", { className: "live-map" }, sides);
  const map = element("canvas", { className: "live-surface", tabIndex: 0 }, place);
  // A slider has one value; what is said of this one is its text, with both numbers.
  const attributes = { role: "slider", "aria-label": words.map, "aria-roledescription": words.kind };
  for (const [name, value] of Object.entries({
    ...attributes,
    "aria-valuemin": low,
    "aria-valuemax": high,
  }))
    map.setAttribute(name, value);
  const decoded = element("div", { className: "live-decoded" }, sides);
  const showImage = pictureFrame(words.image, decoded);
  const facts = element("div", { className: "live-point" }, decoded);
  const numbers = element("output", { className: "live-place" }, facts);
  element("p", { textContent: words.hint }, facts);
  const buttons = element("div", { className: "live-controls" }, facts);
  const random = element("button", { type: "button", textContent: words.random }, buttons);

  let z = [within(0), within(0)];
  let view = "digit";
  function show() {
    drawMap(map, state, views[view], z);
    const [a, b] = z.map((value) => value.toFixed(2).replace("-", "−"));
    numbers.ariaLive = document.activeElement === map ? "off" : "polite"; // or it is said twice
    numbers.textContent = `\u2066z = (${a}, ${b})\u2069`; // from left to right
    map.setAttribute("aria-valuenow", z[0].toFixed(2));
    map.setAttribute("aria-valuetext", `z₁ = ${a}, z₂ = ${b}`);
    showImage(decoder(z));
  }
  const frame = eachFrame(show);
  function moveTo(next) {
    z = next.map(within);
    frame.ask();
  }

  const pull = ([x, y]) => moveTo([low + x * (high - low), high - y * (high - low)]);
  follow(map, { start: pull, move: pull });
  map.addEventListener("keydown", (event) => {
    const way = KEYS[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab has arrow keys of its own
    const step = ((event.shiftKey ? 5 : 1) * (high - low)) / STEPS;
    moveTo(z.map((value, axis) => value + step * way[axis]));
  });
  random.addEventListener("click", () => moveTo(normalPair()));
  if (views.colour) {
    const names = Object.keys(views);
    const choice = openChoice(words.dots, names.map((name) => ({ text: words.by[name] })), place, (i) =>
      look(names[i]));
    const box = element("div", { className: "live-legends" }, place);
    const legends = names.map((name) => addLegend(views[name].groups, words.by[name], box));
    const look = (name) => {
      view = name;
      map.dataset.shows = name;
      legends.forEach((legend, i) => { legend.hidden = names[i] !== name; });
      show();
    };
    choice.choose(0);
    look(view);
  }
  const stopWatching = redrawn(el, show);
  show();
  return () => {
    frame.cancel();
    stopWatching();
  };
}

export default { render };
