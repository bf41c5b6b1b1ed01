// The parts of the panel of a language model, each with what shows something new in it: see
// language.js. Tokens are English, and run from left to right in any edition.

import { openBars, percent } from "./bars.js";
import { element } from "./basics.js";
import { openChoice } from "./choice.js";
import { largest, samplingLaw } from "./sampling.js";

const LENGTH = 1000; // characters of a prompt
const TOPS = [0, 50, 10, 3]; // 0: all
const AT_START = { temperature: 0.8, top: 0 };
const BARS = 8;
const RIVALS = 3; // that each block predicts

const english = { lang: "en", dir: "ltr" };

/** Puts text into `node`, a token's name in the place of each {}. */
export function tell(node, text, ...names) {
  node.replaceChildren();
  text.split("{}").forEach((part, i) => {
    if (i) element("bdi", { className: "live-token", textContent: names[i - 1], ...english }, node);
    node.append(part);
  });
}

/** The prompt's box; returns it. */
export function openPrompt(words, prompt, parent) {
  const label = element("label", { className: "live-prompt" }, parent);
  element("span", { textContent: words.prompt }, label);
  const settings = { value: prompt, rows: 2, maxLength: LENGTH, spellcheck: false, ...english };
  return element("textarea", settings, label);
}

/** Temperature and top-k; returns `settings`, which follows them. */
export function openSettings(words, parent, changed) {
  const settings = { ...AT_START };
  const row = element("div", { className: "live-controls" }, parent);
  const time = element("div", { className: "live-time" }, row);
  const title = element("label", { textContent: `${words.temperature} ` }, time);
  const range = { type: "range", min: 0, max: 2, step: 0.05, value: settings.temperature };
  const slider = element("input", range, title);
  const value = element("span", { className: "live-value" }, time);
  const label = element("label", { textContent: `${words.top} ` }, row);
  const select = element("select", {}, label);
  for (const top of TOPS) element("option", { value: top, textContent: top || words.all }, select);
  const follow = () => {
    Object.assign(settings, { temperature: Number(slider.value), top: Number(select.value) });
    value.textContent = settings.temperature.toFixed(2);
    changed();
  };
  value.textContent = settings.temperature.toFixed(2);
  slider.addEventListener("input", follow);
  select.addEventListener("change", follow);
  return settings;
}

/** The buttons; returns `show(writing, empty, full)`: whether it writes, and what the text is. */
export function openButtons(words, parent, acts) {
  const row = element("div", { className: "live-controls" }, parent);
  const add = (textContent, act) => {
    const button = element("button", { type: "button", textContent }, row);
    button.addEventListener("click", act);
    return button;
  };
  let running = false;
  const first = add(words.write, () => (running ? acts.stop() : acts.write()));
  const [one, anew] = [add(words.one, acts.one), add(words.anew, acts.anew)];
  return (writing, empty, full) => {
    running = writing;
    first.textContent = writing ? words.stop : words.write;
    first.disabled = one.disabled = empty || (full && !writing);
    anew.disabled = empty;
  };
}

/** The text; what the model wrote is set off, and read aloud when it is complete. */
export function openText(words, parent) {
  const empty = element("p", { textContent: words.empty }, parent);
  const text = element("p", { className: "live-text", ...english }, parent);
  const start = element("span", {}, text);
  const output = element("output", {}, text);
  output.setAttribute("aria-live", "polite");
  return (prompt, written, writing) => {
    empty.hidden = prompt !== "";
    start.textContent = prompt;
    output.setAttribute("aria-busy", writing);
    output.textContent = written;
  };
}

let chipGroups = 0;

/**
 * The tokens as chips, one of which is chosen: radio buttons, so that arrow keys move among them.
 * `choose(place)` hears what the reader chooses. Returns `show(names, own)`, where the first `own`
 * are the reader's; `mark(place)`, which chooses one; and `shade(weights, start)`.
 */
export function openChips(words, block, parent, choose) {
  const box = element("fieldset", { className: "live-chips" }, parent);
  const title = element("legend", {}, box);
  const row = element("div", english, box);
  const note = element("p", { textContent: words.window(block), hidden: true }, box);
  const group = `live-chips-${chipGroups++}`;
  let chips = [];

  function addChip(name, place) {
    const label = element("label", { className: "live-chip" }, row);
    const radio = element("input", { type: "radio", name: group }, label);
    radio.setAttribute("aria-label", words.token(place + 1, name));
    radio.addEventListener("change", () => choose(place));
    element("span", { textContent: name }, label);
    return { name, label, radio };
  }

  function show(names, own) {
    const same = names.findIndex((name, i) => name !== chips[i]?.name);
    const kept = same < 0 ? names.length : same;
    for (const { label } of chips.splice(kept)) label.remove();
    chips.push(...names.slice(kept).map((name, i) => addChip(name, kept + i)));
    chips.forEach(({ label }, i) => label.toggleAttribute("data-written", i >= own));
    title.textContent = words.tokens(names.length);
    note.hidden = names.length <= block;
  }

  function mark(place) {
    const { radio, label } = chips[place];
    radio.checked = true;
    chips.forEach((chip, i) => chip.label.toggleAttribute("data-chosen", i === place));
    const [top, bottom] = [label.offsetTop, label.offsetTop + label.offsetHeight];
    const hidden = top < row.scrollTop || bottom > row.scrollTop + row.clientHeight;
    if (hidden) row.scrollTop = bottom - row.clientHeight;
  }

  function shade(weights, start) {
    const most = Math.max(...weights);
    chips.forEach(({ label }, i) => {
      const weight = weights[i - start];
      label.toggleAttribute("data-unseen", i < start);
      label.style.setProperty("--weight", `${(100 * (weight ?? 0)) / most}%`);
    });
  }

  return { show, mark, shade };
}

/** What may come next; returns `show(name, law, next)`, where `next` is the token that does. */
export function openNext(words, names, parent) {
  const part = element("div", { className: "live-next" }, parent);
  const title = element("p", { className: "live-title" }, part);
  const showBars = openBars(words.shares, part);
  const said = element("p", {}, part);
  return (name, law, next) => {
    tell(title, words.next, name);
    const order = largest(law, law.length);
    const likely = order.slice(0, BARS).filter((token) => law[token] > 0);
    showBars(likely.map((token) => ({ name: names[token], share: law[token] })));
    const rank = order.indexOf(next) + 1;
    const told = law[next] > 0 ? words.stands(percent(law[next]), rank) : words.left;
    tell(said, next === undefined ? "" : told, names[next]);
  };
}

/** What each block would predict; returns `show(logits)`, one row of them for each. */
export function openLens(words, names, depth, parent) {
  const table = element("table", { className: "live-lens" }, parent);
  element("caption", { textContent: words.lens }, table);
  const body = element("tbody", {}, table);
  const cells = Array.from({ length: depth + 1 }, (_, block) => {
    const row = element("tr", {}, body);
    const told = block ? words.after(block) : words.before;
    element("th", { scope: "row", textContent: told }, row);
    return element("td", {}, row);
  });
  return (logits) => cells.forEach((cell, block) => {
    const law = samplingLaw(logits[block], { temperature: 1, top: 0 });
    cell.replaceChildren();
    for (const token of largest(law, RIVALS))
      tell(element("span", {}, cell), `{} ${percent(law[token])}`, names[token]);
  });
}

/** Whose attention is shown; returns `weights(attention)` of that block and head. */
export function openLook(words, { depth, heads }, parent, changed) {
  const numbers = (count) => Array.from({ length: count }, (_, i) => ({ text: String(i + 1) }));
  let [block, head] = [depth - 1, 0];
  const blocks = openChoice(words.block, numbers(depth), parent, (i) => {
    block = i;
    changed();
  });
  const all = openChoice(words.head, [{ text: words.mean }, ...numbers(heads)], parent, (i) => {
    head = i;
    changed();
  });
  blocks.choose(block);
  all.choose(head);
  return (attention) => {
    if (head) return attention[block][head - 1];
    return attention[block][0].map((_, s) =>
      attention[block].reduce((sum, weights) => sum + weights[s] / heads, 0));
  };
}
