// A choice by radio buttons, each with an image.

import { openChoice } from "./choice.js";
import { picture } from "./images.js";

/** As `openChoice`, each option with an image above its name; returns `show(images)` too. */
export function openStrip(title, names, parent, changed) {
  const choice = openChoice(title, names.map((text) => ({ text })), parent, changed);
  choice.box.classList.add("live-strip");
  const pictures = choice.labels.map((label) => picture(label));
  for (const { canvas } of pictures) canvas.setAttribute("aria-hidden", "true"); // the name says it
  return { ...choice, show: (images) => images.forEach((image, i) => pictures[i].show(image)) };
}
