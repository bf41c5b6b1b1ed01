// A choice by radio buttons, each with its colour: a choice and a legend in one.

import { element } from "./basics.js";

let groups = 0;

/**
 * Radio buttons under a title. Of each option { text, paint, edge }, `paint` is the colour of its dot
 * and `edge` that of the dot's rim; without a paint it has none. `changed(i)` hears what the reader
 * chooses. Returns its box, the options' labels, and `choose(i)`; −1 chooses none.
 */
export function openChoice(title, options, parent, changed) {
  const box = element("fieldset", { className: "live-choice" }, parent);
  element("legend", { textContent: title }, box);
  const name = `live-choice-${groups++}`;
  const radios = [];
  const labels = options.map(({ text, paint, edge }, i) => {
    const label = element("label", {}, box);
    const radio = element("input", { type: "radio", name }, label);
    radio.addEventListener("change", () => changed(i));
    radios.push(radio);
    if (paint) addDot(paint, edge, label);
    element("span", { textContent: text }, label);
    return label;
  });
  const choose = (chosen) => radios.forEach((radio, i) => { radio.checked = i === chosen; });
  return { box, labels, choose };
}

/** A round dot of a colour, which may have a rim of another. */
export function addDot(paint, edge, parent) {
  const dot = element("span", { className: "live-dot" }, parent);
  dot.style.setProperty("--dot", paint);
  dot.style.setProperty("--dot-edge", edge ?? "transparent");
}
