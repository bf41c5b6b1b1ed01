// Live figures: each <div data-live="name" data-state="path"> runs the module live/name.js, the
// same one that the notebook's widget runs, on the state that was stored when the book was built.
// A figure loads when it comes near the window.

const home = new URL("./live/", import.meta.url);
const language = document.documentElement.lang;

/** What a module expects of anywidget's model: its `state`, and the page's language as `lang`. */
class Model {
  #values;
  #listeners = new Map();

  constructor(values) {
    this.#values = values;
  }

  get(key) {
    return this.#values[key];
  }

  set(key, value) {
    if (Object.is(this.#values[key], value)) return;
    this.#values[key] = value;
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
    await module.default.render({ model: new Model({ state, lang: language }), el });
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
