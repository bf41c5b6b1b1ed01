// Live figures: each <div data-live="name" data-state="path"> runs the module live/name.js, the
// same one that the notebook's widget runs, on the state that was stored when the book was built.
// A figure loads when it comes near the window.

const home = new URL("./live/", import.meta.url);
const language = document.documentElement.lang;

/** What a module expects of anywidget's model. */
class Model {
  #state;
  #listeners = new Map();

  constructor(state) {
    this.#state = state;
  }

  get(key) {
    return this.#state[key];
  }

  set(key, value) {
    if (Object.is(this.#state[key], value)) return;
    this.#state[key] = value;
    for (const name of [`change:${key}`, "change"]) {
      for (const listener of this.#listeners.get(name) ?? []) listener({ key, value });
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
  const { live, state } = place.dataset;
  try {
    const [module, values] = await Promise.all([
      import(new URL(`${live}.js`, home)),
      fetchState(state),
    ]);
    const el = document.createElement("div");
    el.className = "live-figure";
    await module.default.render({ model: new Model({ ...values, lang: language }), el });
    place.replaceChildren(el);
    place.dataset.ready = "";
  } catch (error) {
    place.querySelector(".live-waiting").append(` ${place.dataset.failed}`);
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
