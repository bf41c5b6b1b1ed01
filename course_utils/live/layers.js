// A panel with a slider over the layers of an affine coupling flow; the flow itself runs here.
// JupyterLab renders it through anywidget, a built page through a thin loader without a kernel:
// both call `render({ model, el })`. The state is made by course_utils/live.py.

const WORDS = {
  en: { layer: "Layer", play: "Play", fresh: "New points", canvas: "Points after layer" },
  he: { layer: "שכבה", play: "הפעלה", fresh: "נקודות חדשות", canvas: "הנקודות אחרי שכבה" },
};
const POINTS = 800;

// --- the flow: the formulas of course_utils/models/normalizing_flow.py ---------------------------

const decode = (text) =>
  new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

const silu = (v) => v / (1 + Math.exp(-v));

/** W·x + b, with W stored row by row. */
const linear = ({ weight, bias }, x) =>
  bias.map((b, row) => x.reduce((sum, v, j) => sum + weight[row * x.length + j] * v, b));

/** Linear layers with SiLU between them and a single output. */
const mlp = (layers, x) =>
  layers.reduce((h, layer, i) => linear(layer, i ? h.map(silu) : h), x)[0];

/** z → [z, after the first coupling, …, φ(z)], in the coordinates of the data. */
export function makePath(state) {
  const network = (layers) =>
    layers.map(({ weight, bias }) => ({ weight: decode(weight), bias: decode(bias) }));
  const couplings = state.couplings.map((c) => {
    const logScale = network(c.log_scale);
    const shift = network(c.shift);
    const moving = 1 - c.fixed;
    return (x) => {
      const a = x[c.fixed];
      const angles = c.k.map((k) => k * a);
      const h = Float32Array.of(a, ...angles.map(Math.sin), ...angles.map(Math.cos));
      const s = c.max_log_scale * Math.tanh(mlp(logScale, h) / c.max_log_scale);
      const y = [...x];
      y[moving] = x[moving] * Math.exp(s) + mlp(shift, h); // y_b = x_b·exp(s(x_a)) + t(x_a)
      return y;
    };
  });
  return (z) => couplings.reduce((frames, step) => [...frames, step(frames.at(-1))], [z]);
}

/** Two independent numbers from N(0, 1), by Box and Muller. */
function normalPair() {
  const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
  const angle = 2 * Math.PI * Math.random();
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}

// --- the panel -----------------------------------------------------------------------------------

function element(tag, properties, parent) {
  const node = Object.assign(document.createElement(tag), properties);
  parent.append(node);
  return node;
}

function render({ model, el }) {
  const state = model.get("state");
  const words = WORDS[document.documentElement.lang] ?? WORDS.en;
  const path = makePath(state);
  const layers = state.couplings.length;
  let frames = [];

  el.classList.add("live-layers");
  const canvas = element("canvas", {}, el);
  canvas.setAttribute("role", "img");
  const controls = element("div", { className: "live-controls" }, el);
  const label = element("label", { textContent: `${words.layer} ` }, controls);
  const value = element("output", {}, label);
  const slider = element(
    "input",
    { type: "range", min: 0, max: layers, step: 0.05, value: layers },
    label,
  );
  const play = element("button", { type: "button", textContent: words.play }, controls);
  const fresh = element("button", { type: "button", textContent: words.fresh }, controls);

  function draw() {
    const t = Number(slider.value);
    const below = Math.min(Math.floor(t), layers - 1);
    const share = t - below;
    const [left, right, bottom, top] = state.window;
    const width = el.clientWidth || 600;
    const height = (width * (top - bottom)) / (right - left);
    const ratio = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    const scale = (width * ratio) / (right - left);
    const pen = canvas.getContext("2d");
    const colour = getComputedStyle(el);
    const x = (v) => (v * state.std[0] + state.mean[0] - left) * scale;
    const y = (v) => (top - (v * state.std[1] + state.mean[1])) * scale;

    pen.strokeStyle = colour.getPropertyValue("--live-outline") || "#9AA4AF";
    for (const [cx, cy, r] of state.circles) {
      pen.beginPath();
      pen.arc((cx - left) * scale, (top - cy) * scale, r * scale, 0, 2 * Math.PI);
      pen.stroke();
    }
    pen.fillStyle = colour.getPropertyValue("--live-point") || "#0072B2";
    for (const frame of frames) {
      const [a, b] = [frame[below], frame[below + 1]];
      pen.beginPath();
      pen.arc(
        x(a[0] + share * (b[0] - a[0])),
        y(a[1] + share * (b[1] - a[1])),
        1.4 * ratio, 0, 2 * Math.PI,
      );
      pen.fill();
    }
    value.textContent = t.toFixed(1);
    canvas.setAttribute("aria-label", `${words.canvas} ${t.toFixed(1)}`);
  }

  function drawNewPoints() {
    frames = Array.from({ length: POINTS }, () => path(normalPair()));
    draw();
  }

  let timer = 0;
  function animate(from) {
    cancelAnimationFrame(timer);
    const start = performance.now();
    const tick = (now) => {
      const t = from + (now - start) / 500; // two layers a second
      slider.value = Math.min(t, layers);
      draw();
      if (t < layers) timer = requestAnimationFrame(tick);
    };
    timer = requestAnimationFrame(tick);
  }

  slider.addEventListener("input", () => { cancelAnimationFrame(timer); draw(); });
  play.addEventListener("click", () => animate(0));
  fresh.addEventListener("click", drawNewPoints);
  const resized = new ResizeObserver(draw);
  resized.observe(el);
  const themed = new MutationObserver(draw);
  themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  drawNewPoints();
  return () => {
    cancelAnimationFrame(timer);
    resized.disconnect();
    themed.disconnect();
  };
}

export default { render };
