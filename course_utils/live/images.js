// What the panels with an image of 28 × 28 pixels share: showing it, and following a finger, a pen
// or the mouse.

import { decodeBytes, element } from "./basics.js";

export const SIDE = 28;
export const PIXELS = SIDE * SIDE; // of an image

/** Base64 of bytes → grey images. */
export function decodeGrey(text) {
  const levels = Float32Array.from(decodeBytes(text), (byte) => byte / 255);
  return Array.from({ length: levels.length / PIXELS }, (_, i) =>
    levels.subarray(i * PIXELS, (i + 1) * PIXELS));
}

/**
 * A canvas for an image; returns it and `show(image)`: from 0 to 1 grey levels, or red light, then
 * green, then blue.
 */
export function picture(parent) {
  const canvas = element("canvas", { width: SIDE, height: SIDE }, parent);
  const pen = canvas.getContext("2d");
  const show = (image) => {
    const pixels = pen.createImageData(SIDE, SIDE);
    const next = image.length > PIXELS ? PIXELS : 0; // from one channel to the next
    for (let i = 0; i < PIXELS; i++) {
      const [red, green, blue] = [image[i], image[i + next], image[i + 2 * next]];
      // the array itself rounds, and cuts what is out of range
      pixels.data.set([255 * red, 255 * green, 255 * blue, 255], 4 * i);
    }
    pen.putImageData(pixels, 0, 0);
  };
  return { canvas, show };
}

/** A place for an image, with its title; returns `show(image)`, see there. */
export function pictureFrame(title, parent) {
  const figure = element("figure", { className: "live-picture" }, parent);
  const { canvas, show } = picture(figure);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", title);
  element("figcaption", { textContent: title }, figure);
  return show;
}

/** Gives a canvas as many pixels as its place on the screen has; returns how many to a CSS pixel. */
export function sharpen(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const side = Math.round((canvas.clientWidth || 280) * ratio);
  if (canvas.width !== side) Object.assign(canvas, { width: side, height: side });
  return ratio;
}

/**
 * Follows a pointer that is pressed on `area`: start, move and end get its places as [x, y], from 0
 * at the left and the top to 1 at the right and the bottom.
 */
export function follow(area, { start, move, end }) {
  let pointer = null; // the one that is followed
  const place = ({ clientX, clientY }) => {
    const { left, top, width, height } = area.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / height];
  };
  area.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    pointer = event.pointerId;
    area.setPointerCapture(pointer);
    start(place(event));
  });
  area.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const places = event.getCoalescedEvents?.() ?? [];
    for (const each of places.length > 0 ? places : [event]) move(place(each));
  });
  area.addEventListener("lostpointercapture", (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    end?.();
  });
}

/** Calls `work` at the next frame of the screen, once however often it is asked to. */
export function eachFrame(work) {
  let asked = 0;
  const ask = () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      work();
    });
  };
  const cancel = () => {
    cancelAnimationFrame(asked);
    asked = 0;
  };
  return { ask, cancel };
}
