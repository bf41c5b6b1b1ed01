// The picture on the home page: points that a trained network carries from noise to the rings and
// back. Where motion is unwelcome they rest on the rings. The state is that of the panel in flow.js.

import { normalPair, redrawn, turn } from "./basics.js";
import { makeVelocity, walk } from "./flow.js";

const POINTS = 600;
const STEPS = 20;
const SLICE = 24; // milliseconds of work before the page gets its turn
const SECONDS = { start: 0.8, move: 3.2, rest: 3, back: 1.4 };
const EDGE = { left: -2.2, right: 6.2, low: -2.75, high: 1.75 }; // what is shown of the plane
const LABEL = {
  en: "Points of noise move and become the five Olympic rings",
  he: "נקודות רעש נעות והופכות לחמש הטבעות האולימפיות",
};

const ease = (u) => u * u * (3 - 2 * u);

/** How far on their way the points are after so many seconds: 0 is noise, 1 the rings. */
function progress(seconds) {
  const { start, move, rest, back } = SECONDS;
  const s = seconds % (start + move + rest + back);
  if (s < start) return 0;
  if (s < start + move) return ease((s - start) / move);
  if (s < start + move + rest) return 1;
  return ease(1 - (s - start - move - rest) / back);
}

/** The points of all steps, found without holding up the page. */
async function solve(state, labels) {
  const noise = Float64Array.from(Array.from({ length: POINTS }, normalPair).flat());
  const walking = walk(makeVelocity(state.velocity), noise, labels, STEPS, "midpoint");
  let rest = performance.now() + SLICE;
  let found = walking.next();
  while (!found.done) {
    if (performance.now() > rest) {
      await turn();
      rest = performance.now() + SLICE;
    }
    found = walking.next();
  }
  return found.value;
}

async function render({ model, el }) {
  const { class_names: names, mean, std, velocity } = model.get("state");
  el.classList.add("live-moving");
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", LABEL[document.documentElement.lang.slice(0, 2)] ?? LABEL.en);
  el.append(canvas);
  const labels = names.length
    ? Array.from({ length: POINTS }, (_, i) => i % names.length)
    : null;
  const states = await solve({ velocity }, labels);
  const pen = canvas.getContext("2d");

  function draw(done) {
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    const scale = devicePixelRatio;
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const step = Math.min(Math.floor(done * STEPS), STEPS - 1);
    const part = done * STEPS - step;
    const [before, after] = [states[step], states[step + 1]];
    const unit = Math.min(width / (EDGE.right - EDGE.left), height / (EDGE.high - EDGE.low));
    const size = Math.max(1.3, width / 360);
    const style = getComputedStyle(el);
    const colours = (names.length ? names : ["blue"])
      .map((name) => style.getPropertyValue(`--live-${name}`));
    pen.globalAlpha = 0.85;
    for (let i = 0; i < POINTS; i++) {
      const [x, y] = [0, 1].map((axis) => {
        const value = before[2 * i + axis] * (1 - part) + after[2 * i + axis] * part;
        return value * std[axis] + mean[axis];
      });
      pen.fillStyle = colours[labels ? labels[i] : 0];
      pen.beginPath();
      pen.arc(
        width / 2 + (x - (EDGE.left + EDGE.right) / 2) * unit,
        height / 2 - (y - (EDGE.low + EDGE.high) / 2) * unit,
        size, 0, 2 * Math.PI,
      );
      pen.fill();
    }
  }

  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let frame = 0;
  let began;
  const move = (now) => {
    began ??= now;
    draw(progress((now - began) / 1000));
    frame = requestAnimationFrame(move);
  };
  const seen = new IntersectionObserver(([{ isIntersecting }]) => {
    cancelAnimationFrame(frame);
    if (isIntersecting && !still.matches) frame = requestAnimationFrame(move);
  });
  const forget = redrawn(canvas, () => draw(still.matches ? 1 : 0));
  draw(1);
  seen.observe(canvas);
  return () => {
    cancelAnimationFrame(frame);
    seen.disconnect();
    forget();
  };
}

export default { render };
