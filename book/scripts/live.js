// Live figures: each <div data-live="name" data-state="path"> runs the module live/name.js, the
// same one that the notebook's widget runs, on the state that was stored when the book was built.
// A figure loads when it comes near the window, weights beside its state when it asks for them.

const home = new URL("./live/", import.meta.url);
const language = document.documentElement.lang;

/** The file of weights of that name, piece by piece; `told(bytes)` hears how much has come. */
async function fetchWeights(name, told) {
  const answer = await fetch(new URL(`${name}.bin`, home));
  if (!answer.ok) throw new Error(`${answer.status} for the weights of ${name}`);
  const pieces = [];
  let bytes = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return new Blob(pieces).arrayBuffer();
    pieces.push(value);
    told(bytes += value.length);
  }
}

/** What a module expects of anywidget's model: its `state`, and the page's language as `lang`. */
class Model {
  #name;
  #values;
  #listeners = new Map();

  constructor(name, values) {
    this.#name = name;
    this.#values = values;
  }

  get(key) {
    return this.#values[key];
  }

  set(key, value) {
    if (Object.is(this.#values[key], value)) return;
    this.#values[key] = value;
    for (const name of [`change:${key}`, "change"]) this.#tell(name, { key, value });
  }

  #tell(name, ...news) {
    for (const listener of this.#listeners.get(name) ?? []) listener(...news);
  }

  /** Answers a module that asks for its weights, as the kernel would. */
  async send({ kind }) {
    const told = (bytes) => this.#tell("msg:custom", { kind: "progress", bytes }, []);
    try {
      const weights = await fetchWeights(this.#name, told);
      this.#tell("msg:custom", { kind }, [new DataView(weights)]);
    } catch (error) {
      this.#tell("msg:custom", { kind: "failed" }, []);
      throw error;
    }
  }

  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
  }

  off(name, listener) {
    if (listener) this.#listeners.get(name)?.delete(listener);
    else this.#listeners.delete(name);
  }

  save_changes() {
    // there is no kernel to tell
  }
}

const fetchState = async (name) => {
  const answer = await fetch(new URL(`${name}.json`, home));
  if (!answer.ok) throw new Error(`${answer.status} for the state of ${name}`);
  return answer.json();
};

const start = async (place) => {
  const waiting = place.querySelector(".live-waiting");
  const el = document.createElement("div");
  el.className = "live-figure";
  try {
    const [module, state] = await Promise.all([
      import(new URL(`${place.dataset.live}.js`, home)),
      fetchState(place.dataset.state),
    ]);
    waiting.hidden = true;
    place.dataset.ready = "";
    place.append(el); // in the page first: a figure measures the room it has
    const model = new Model(place.dataset.state, { state, lang: language });
    await module.default.render({ model, el });
  } catch (error) {
    el.remove();
    delete place.dataset.ready;
    waiting.hidden = false;
    waiting.append(` ${place.dataset.failed}`);
    throw error;
  }
};

const near = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    start(target);
  }
}, { rootMargin: "400px" });

for (const place of document.querySelectorAll("div[data-live]")) near.observe(place);
