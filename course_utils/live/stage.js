// What the panels over the rings share: the canvas with their outline, a slider over the frames of
// a motion, play, new points. A page loads this file beside the panel; in JupyterLab it is put into
// the panel's own module (course_utils/live/panel.py).

import { element, inLanguage, redrawn } from "./basics.js";

const CONTROLS = {
  en: { play: "Play", pause: "Pause", fresh: "New points" },
  he: { play: "הפעלה", pause: "עצירה", fresh: "נקודות חדשות" },
};

/**
 * The stage in `el`: canvas, slider from 0 to `end`, play, new points.
 *
 * `label` names the slider, `picture` says what the canvas shows (the slider's value follows it),
 * `digits` are the value's decimals, `seconds` is how long play takes, `renew` draws new points.
 *
 * Returns `show(frames, colours)` and `close()`. A frame holds x₀, y₀, x₁,
 * y₁, … in the coordinates of the data; the first belongs to 0, the last to `end`, and between two
 * the points move evenly. `colours` names the colour of each point: --live-<name> in the styles.
 */
export function openStage({ el, state, label, picture, end, digits, seconds, radius, renew }) {
  const words = inLanguage(CONTROLS);
  let frames = [];
  let colours = null;

  el.classList.add("live-stage");
  const canvas = element("canvas", {}, el);
  canvas.setAttribute("role", "img");
  const controls = element("div", { className: "live-controls" }, el);
  const time = element("div", { className: "live-time" }, controls);
  const title = element("label", { textContent: `${label} ` }, time);
  const slider = element(
    "input",
    { type: "range", min: 0, max: end, step: end / 100, value: end },
    title,
  );
  const value = element("span", { className: "live-value" }, time);
  const play = element("button", { type: "button", textContent: words.play }, controls);
  const fresh = element("button", { type: "button", textContent: words.fresh }, controls);

  /** The pen, with a scale from the rings' coordinates to the canvas, which it sizes. */
  function prepare() {
    const [left, right, bottom, top] = state.window;
    const width = el.clientWidth || 600;
    const height = (width * (top - bottom)) / (right - left);
    const ratio = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    const scale = (width * ratio) / (right - left);
    const pen = canvas.getContext("2d");
    const circle = (x, y, r) => {
      pen.beginPath();
      pen.arc((x - left) * scale, (top - y) * scale, r, 0, 2 * Math.PI);
    };
    return { pen, circle, scale, ratio };
  }

  function draw() {
    const { pen, circle, scale, ratio } = prepare();
    const style = getComputedStyle(el);
    const colour = (name) => style.getPropertyValue(`--live-${name}`);
    pen.lineWidth = ratio;
    pen.strokeStyle = colour("outline");
    for (const [x, y, r] of state.circles) {
      circle(x, y, r * scale);
      pen.stroke();
    }

    const text = Number(slider.value).toFixed(digits);
    value.textContent = text;
    canvas.setAttribute("aria-label", `${picture} ${text}`);
    if (frames.length === 0) return;
    const moment = (slider.value / end) * (frames.length - 1);
    const below = Math.min(Math.floor(moment), frames.length - 2);
    const share = moment - below;
    const [a, b] = [frames[below], frames[below + 1]];
    const at = (i, axis) =>
      (a[i + axis] + share * (b[i + axis] - a[i + axis])) * state.std[axis] + state.mean[axis];
    const paints = new Map();
    for (const name of colours ? new Set(colours) : ["point"])
      paints.set(name, [colour(name), colour(`${name}-edge`)]);
    for (let i = 0; i < a.length; i += 2) {
      const [fill, edge] = paints.get(colours?.[i / 2] ?? "point");
      circle(at(i, 0), at(i, 1), radius * ratio);
      pen.fillStyle = fill;
      pen.fill();
      if (!edge) continue;
      pen.strokeStyle = edge;
      pen.stroke();
    }
  }

  let timer = 0;
  function stop() {
    cancelAnimationFrame(timer);
    timer = 0;
    play.textContent = words.play;
  }
  function start() {
    const from = Number(slider.value) < end ? Number(slider.value) : 0;
    const began = performance.now();
    const tick = (now) => {
      const reached = from + (Math.max(0, now - began) / 1000 / seconds) * end;
      slider.value = Math.min(reached, end);
      draw();
      if (reached < end) timer = requestAnimationFrame(tick);
      else stop();
    };
    play.textContent = words.pause;
    timer = requestAnimationFrame(tick);
  }

  slider.addEventListener("input", () => { stop(); draw(); });
  play.addEventListener("click", () => (timer ? stop() : start()));
  fresh.addEventListener("click", () => renew());
  const stopWatching = redrawn(el, draw);
  return {
    show(newFrames, newColours = null) {
      [frames, colours] = [newFrames, newColours];
      draw();
    },
    close() {
      stop();
      stopWatching();
    },
  };
}
