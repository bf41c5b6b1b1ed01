// Probabilities as bars, each with its name and its share in percent.

import { element } from "./basics.js";

/** A probability in percent; what is not quite 1 does not look like 1. */
export function percent(share) {
  const text = share > 0.9995 && share < 1 ? ">99.9%" : `${(100 * share).toFixed(1)}%`;
  return `\u2066${text}\u2069`; // from left to right
}

/** Bars under a title; returns `show(rows)` of { name, share }, without a share an empty one. */
export function openBars(title, parent) {
  const list = element("ul", { className: "live-bars" }, parent);
  list.setAttribute("aria-label", title);
  const rows = [];
  const addRow = () => {
    const row = element("li", {}, list);
    const name = element("bdi", { dir: "ltr" }, row);
    const bar = element("i", {}, element("span", { className: "live-bar" }, row));
    rows.push({ row, name, bar, told: element("span", { className: "live-share" }, row) });
  };
  return (shown) => {
    const largest = Math.max(...shown.map(({ share }) => share ?? 0));
    while (rows.length < shown.length) addRow();
    rows.forEach(({ row, name, bar, told }, i) => {
      row.hidden = i >= shown.length;
      if (row.hidden) return;
      const { share } = shown[i];
      name.textContent = shown[i].name;
      bar.style.inlineSize = `${100 * (share ?? 0)}%`;
      told.textContent = share === undefined ? "" : percent(share);
      row.toggleAttribute("data-first", share > 0 && share === largest);
    });
  };
}
