// Weights that a panel loads when the reader asks for them: from the site, where they lie beside
// the state, or from the kernel (book/scripts/live.js, course_utils/live/panel.py).

import { element, inLanguage } from "./basics.js";

const GATE_WORDS = {
  en: {
    load: (size) => `Load the model (${size})`,
    loading: (part, size) => `Loading: ${part} of ${size}`,
    failed: "The model could not be loaded. Please try again.",
  },
  he: {
    load: (size) => `טעינת המודל (${size})`,
    loading: (part, size) => `בטעינה: ${part} מתוך ${size}`,
    failed: "לא ניתן היה לטעון את המודל. נסו שוב.",
  },
};
const PATIENCE = 60_000; // ms without a sign of life

/** The weights as an ArrayBuffer; `told(bytes)` hears how many have come. */
export function askWeights(model, told) {
  return new Promise((done, fail) => {
    let timer = 0;
    const end = (finish, result) => {
      clearTimeout(timer);
      model.off("msg:custom", listen);
      finish(result);
    };
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => end(fail, new Error("no answer")), PATIENCE);
    };
    function listen({ kind, bytes }, buffers) {
      wait();
      if (kind === "progress") told(bytes);
      if (kind === "failed") end(fail, new Error("the weights could not be loaded"));
      if (kind === "weights") {
        const { buffer, byteOffset, byteLength } = buffers[0];
        end(done, buffer.slice(byteOffset, byteOffset + byteLength));
      }
    }
    model.on("msg:custom", listen);
    wait();
    model.send({ kind: "weights" });
  });
}

export const megabytes = (bytes) => `\u2066${(bytes / 1e6).toFixed(1)} MB\u2069`;
export const seconds = (ms) => Math.max(0.01, ms / 1000).toFixed(2);

/**
 * A button that loads the weights, of which there are `bytes` in half precision, below what `about`
 * says of their number. `start(weights, ms)` then makes the model, where `ms` is how long they took,
 * and promises what opens the panel in the button's place.
 */
export function openGate(model, about, el, start) {
  const words = inLanguage(GATE_WORDS);
  const { bytes } = model.get("state");
  const size = megabytes(bytes);
  const gate = element("div", { className: "live-gate" }, el);
  element("p", { textContent: about((bytes / 2).toLocaleString("en")) }, gate);
  const button = element("button", { type: "button", textContent: words.load(size) }, gate);
  const said = element("output", {}, gate);

  button.addEventListener("click", async () => {
    button.disabled = true;
    said.textContent = words.loading(megabytes(0), size);
    try {
      const from = performance.now();
      const weights = await askWeights(model, (come) => {
        said.textContent = words.loading(megabytes(come), size);
      });
      const open = await start(weights, performance.now() - from);
      gate.remove();
      open();
    } catch (error) {
      button.disabled = false;
      button.focus();
      said.textContent = words.failed;
      console.error(error);
    }
  });
}

/** What the gate leaves: how long all took, with the focus, as the button has gone. */
export function tellLoaded(told, parent) {
  const about = { className: "live-told", textContent: told, tabIndex: -1 };
  element("output", about, parent).focus({ preventScroll: true });
}
