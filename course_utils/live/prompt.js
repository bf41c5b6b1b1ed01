// A panel of a text-to-image model: the reader gives a caption, a seed and guidance, and sees the
// picture and the way to it. All runs here, once the reader has loaded the weights. The state is made
// by course_utils/live/prompt.py.

import { percent } from "./bars.js";
import { element, inLanguage } from "./basics.js";
import { addDot, openChoice } from "./choice.js";
import { makeColours, nearestColour } from "./colours.js";
import { picture, pictureFrame } from "./images.js";
import {
  expectedEnd, makeModel, makePause, makeReader, plainWords, saidBy, seededNoise, walk,
} from "./prompt_model.js";
import { megabytes, openGate, seconds, tellLoaded } from "./weights.js";

const quoted = (word) => `“\u2068${word}\u2069”`;

const WORDS = {
  en: {
    about: (weights) =>
      `From a caption to a picture: a model with ${weights} weights, which runs here, on your`
      + " device.",
    loaded: (size, load, first) =>
      `${size} were loaded in ${load} s; the first picture took ${first} s.`,
    caption: "Caption, in English or Hebrew",
    language: "Language",
    digit: "Digit",
    colour: "Colour",
    any: { digit: "any", colour: "any" },
    seed: "Seed of the noise",
    another: "Another seed",
    guidance: "Guidance \u2066w\u2069",
    steps: "Steps",
    empty: "There is no caption: the picture is drawn without one, and guidance changes nothing.",
    unknown: (words) => `The model knows only the words of its captions. Not among them: ${words}.`,
    perhaps: (near) => ` (perhaps ${quoted(near)}?)`,
    long: (count, most) => `The caption has ${count} words; the model reads at most ${most}.`,
    picture: "The picture, at \u2066t = 1\u2069",
    seen: {
      digit: "Digit, by the classifier",
      colour: "Nearest colour",
      same: "as the caption says",
      other: (said) => `the caption says ${said}`,
      dark: "too dark to have one",
    },
    way: "The way there: above, \u2066zₜ\u2069 decoded; below, decoded too, where a straight line"
      + " from there ends, \u2066zₜ\u00a0+\u00a0(1\u00a0−\u00a0t)·v\u2069",
    now: (t) => `The picture at ${t}`,
    end: (t) => `Where a straight line from ${t} ends`,
    noise: "A seed always gives the same noise in this panel, and other noise than in the notebook.",
  },
  he: {
    about: (weights) => `מכתובית לתמונה: מודל עם ${weights} משקלים, שרץ כאן, במכשיר שלכם.`,
    loaded: (size, load, first) =>
      `נטענו ${size} בתוך ${load} שניות; התמונה הראשונה צוירה בתוך ${first} שניות.`,
    caption: "כתובית, בעברית או באנגלית",
    language: "שפה",
    digit: "ספרה",
    colour: "צבע",
    any: { digit: "כלשהי", colour: "כלשהו" },
    seed: "זרע הרעש",
    another: "זרע אחר",
    guidance: "הכוונה \u2066w\u2069",
    steps: "צעדים",
    empty: "אין כתובית: התמונה מצוירת בלעדיה, וההכוונה אינה משנה דבר.",
    unknown: (words) => `המודל מכיר רק את המילים שבכתוביות שלו. מילים שאינו מכיר: ${words}.`,
    perhaps: (near) => ` (אולי ${quoted(near)}?)`,
    long: (count, most) => `בכתובית יש ${count} מילים; המודל קורא לכל היותר ${most}.`,
    picture: "התמונה, בזמן \u2066t = 1\u2069",
    seen: {
      digit: "הספרה, לפי המסווג",
      colour: "הצבע הקרוב ביותר",
      same: "כמו בכתובית",
      other: (said) => `בכתובית: ${said}`,
      dark: "אין: התמונה כהה מדי",
    },
    way: "הדרך לשם: למעלה \u2066zₜ\u2069 מפוענח; למטה, מפוענח גם הוא, סופו של קו ישר"
      + " שיוצא משם, \u2066zₜ\u00a0+\u00a0(1\u00a0−\u00a0t)·v\u2069",
    now: (t) => `התמונה בזמן ${t}`,
    end: (t) => `סופו של קו ישר מזמן ${t}`,
    noise: "בלוח הזה אותו זרע נותן תמיד אותו רעש, אבל לא את הרעש שהוא נותן במחברת.",
  },
};
const LANGUAGES = [["en", "English"], ["he", "עברית"]];
const LENGTH = 120; // characters of a caption
const MOMENTS = 6;
const STEPS = [1, 2, 4, 10, 20, 50];
const SEEDS = 10_000;
const AT_START = { digit: 7, colour: 0, seed: 1, strength: 2, steps: 10 };

const place = (index) => index + 1; // among options of which the first is "any", −1

// --- what the reader chooses ---------------------------------------------------------------------

/**
 * The caption, typed `above` or chosen `below`; `changed()` hears of a new one. Returns `read()`, its { words,
 * places, missing, said }, and `tell(trouble)`, which says what there is to say about it.
 */
function openCaption({ vocabulary, captions, named }, colours, words, [above, below], changed) {
  const readWords = makeReader(vocabulary);
  const label = element("label", { className: "live-caption" }, above);
  element("span", { textContent: words.caption }, label);
  const settings = { type: "text", dir: "auto", maxLength: LENGTH, spellcheck: false };
  const box = element("input", { ...settings, autocomplete: "off" }, label);
  box.setAttribute("autocapitalize", "off");
  const told = element("output", { className: "live-trouble" }, above);
  const compose = element("div", { className: "live-compose" }, below);

  let language = inLanguage({ en: "en", he: "he" });
  let said = AT_START; // what the chosen caption says

  function write() {
    box.value = captions[language][place(said.digit)][place(said.colour)];
    follow();
  }

  /** What has been chosen follows what has been written. */
  function follow() {
    said = saidBy(plainWords(box.value), named);
    const [latin, hebrew] = [/\p{Script=Latin}/u, /\p{Script=Hebrew}/u].map((letters) =>
      letters.test(box.value));
    if (latin !== hebrew) language = hebrew ? "he" : "en";
    digits.choose(place(said.digit));
    swatches.choose(place(said.colour));
    languages.choose(LANGUAGES.findIndex(([code]) => code === language));
    changed();
  }

  const options = (any, all) => [{ text: any }, ...all];
  const figures = Array.from({ length: captions.en.length - 1 }, (_, digit) =>
    ({ text: String(digit) }));
  const digits = openChoice(words.digit, options(words.any.digit, figures), compose, (i) => {
    said = { ...said, digit: i - 1 };
    write();
  });
  const paints = colours.map(({ name, paint }) =>
    ({ text: name, paint, edge: "var(--live-outline)" }));
  const swatches = openChoice(words.colour, options(words.any.colour, paints), compose, (i) => {
    said = { ...said, colour: i - 1 };
    write();
  });
  const names = LANGUAGES.map(([, text]) => ({ text }));
  const languages = openChoice(words.language, names, compose, (i) => {
    [language] = LANGUAGES[i];
    if (said.digit >= 0 || said.colour >= 0) write();
  });
  LANGUAGES.forEach(([code], i) => { languages.labels[i].lang = code; });

  const tell = (trouble, wrong) => {
    told.textContent = trouble;
    box.setAttribute("aria-invalid", wrong);
  };
  box.addEventListener("input", follow);
  return { read: () => ({ ...readWords(box.value), said }), tell, write };
}

/** Seed, guidance and steps; returns `settings`, which follows them. */
function openDials(words, parent, changed) {
  const settings = { ...AT_START };
  const row = element("div", { className: "live-controls" }, parent);
  const seedLabel = element("label", { textContent: `${words.seed} ` }, row);
  const numbers = { type: "number", min: 0, max: SEEDS - 1, step: 1, value: settings.seed };
  const seed = element("input", { ...numbers, className: "live-seed", dir: "ltr" }, seedLabel);
  const button = { type: "button", textContent: words.another };
  const another = element("button", button, row);
  const time = element("div", { className: "live-time" }, row);
  const title = element("label", { textContent: `${words.guidance} ` }, time);
  const range = { type: "range", min: 0, max: 8, step: 0.5, value: settings.strength };
  const slider = element("input", range, title);
  const value = element("span", { className: "live-value", dir: "ltr" }, time);
  const label = element("label", { textContent: `${words.steps} ` }, row);
  const select = element("select", {}, label);
  for (const steps of STEPS) element("option", { value: steps, textContent: steps }, select);
  select.value = settings.steps;

  function follow() {
    if (seed.value !== "" && seed.validity.valid) settings.seed = Number(seed.value);
    Object.assign(settings, { strength: Number(slider.value), steps: Number(select.value) });
    value.textContent = settings.strength.toFixed(1);
    changed();
  }

  value.textContent = settings.strength.toFixed(1);
  for (const input of [seed, slider]) input.addEventListener("input", follow);
  select.addEventListener("change", follow);
  another.addEventListener("click", () => {
    seed.value = Math.floor(SEEDS * Math.random());
    follow();
  });
  return settings;
}

// --- what the model draws ------------------------------------------------------------------------

/** At which of the steps + 1 times the way is shown. */
export function momentsOf(steps) {
  const count = Math.min(MOMENTS, steps + 1);
  return Array.from({ length: count }, (_, i) => Math.round((i * steps) / (count - 1)));
}

/** The way; returns `show(i, t, now, end)` and `keep(count)`, how many moments there are. */
function openWay(words, parent) {
  const part = element("div", { className: "live-way" }, parent);
  element("p", { textContent: words.way }, part);
  const list = element("ol", {}, part);
  const named = ({ canvas, show }) => (name, image) => {
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name);
    show(image);
  };
  const moments = Array.from({ length: MOMENTS }, () => {
    const item = element("li", { hidden: true }, list);
    const now = named(picture(item));
    const time = element("span", { dir: "ltr" }, item);
    return { item, now, time, end: named(picture(item)) };
  });
  const show = (i, t, now, end) => {
    const told = `t = ${Number(t.toFixed(2))}`;
    moments[i].time.textContent = told;
    moments[i].now(words.now(`\u2066${told}\u2069`), now);
    moments[i].end(words.end(`\u2066${told}\u2069`), end);
    moments[i].item.hidden = false;
  };
  const keep = (count) => moments.slice(count).forEach(({ item }) => { item.hidden = true; });
  return { show, keep };
}

/** What is to be seen in the picture; returns `show(picture, said)`, without a picture nothing. */
function openSeen(model, { palette }, colours, { seen: words }, parent) {
  const output = element("output", { className: "live-reads" }, parent);
  const add = (title, name, paint, share, same, said) => {
    const line = element("p", {}, output);
    element("span", { textContent: title }, line);
    const value = element("strong", {}, line);
    if (paint) addDot(paint, "var(--live-outline)", value);
    value.append(name);
    if (share) line.append(share);
    if (said === undefined) return;
    const told = same ? `✓ ${words.same}` : `✗ ${words.other(said)}`;
    element("span", { className: "live-agrees", textContent: told }, line);
  };
  return (image, said) => {
    output.replaceChildren();
    if (!image) return;
    const chances = model.read(image);
    if (chances) {
      const digit = chances.indexOf(Math.max(...chances));
      const asked = said.digit < 0 ? undefined : said.digit;
      add(words.digit, digit, null, percent(chances[digit]), digit === asked, asked);
    }
    const found = nearestColour(image, colours, palette.dark);
    const { name, paint } = colours[found] ?? { name: words.dark };
    add(words.colour, name, paint, "", found === said.colour, colours[said.colour]?.name);
  };
}

function openStudio(state, model, words, told, el) {
  const colours = makeColours(state.palette);
  let job = 0;

  tellLoaded(told, el);
  const above = element("div", {}, el);
  const drawn = element("div", { className: "live-sides live-drawn" }, el); // one screen with the text
  const caption = openCaption(state, colours, words, [above, el], () => draw());
  const settings = openDials(words, el, () => draw());
  const first = element("div", { className: "live-final" }, drawn);
  const showPicture = pictureFrame(words.picture, first);
  const showSeen = openSeen(model, state, colours, words, first);
  const way = openWay(words, drawn);
  element("p", { className: "live-note", textContent: words.noise }, el);

  /** Says what is wrong with a caption, if anything is; returns whether the model can read it. */
  function check({ words: read, missing }) {
    const most = state.vocabulary.length;
    const names = missing.map(({ word, near }) =>
      quoted(word) + (near ? words.perhaps(near) : ""));
    let trouble = read.length ? "" : words.empty;
    if (read.length > most) trouble = words.long(read.length, most);
    if (missing.length) trouble = words.unknown(names.join(", "));
    const wrong = missing.length > 0 || read.length > most;
    caption.tell(trouble, wrong);
    return !wrong;
  }

  async function draw() {
    const mine = ++job;
    const read = caption.read();
    const ready = check(read);
    drawn.toggleAttribute("data-old", !ready);
    drawn.setAttribute("aria-busy", ready);
    if (!ready) return showSeen(null);
    const { strength, steps, seed } = settings;
    const known = read.places.length ? model.encode(read.places) : null;
    const shown = momentsOf(steps);
    const pause = makePause();
    let n = 0;
    let image = null;
    for (const moment of walk(model, seededNoise(seed, model.dim), known, strength, steps)) {
      const i = shown.indexOf(n++);
      if (i >= 0) {
        image = model.paint(moment.z);
        way.show(i, moment.t, image, moment.v ? model.paint(expectedEnd(moment)) : image);
      }
      await pause();
      if (mine !== job) return; // a newer choice has replaced this one
    }
    way.keep(shown.length);
    showPicture(image);
    showSeen(image, read.said);
    drawn.setAttribute("aria-busy", "false");
  }

  caption.write();
  return () => { job++; };
}

/** The model, and a first picture of the caption that stands there at first. */
async function startModel({ model: networks, vocabulary, captions }, weights) {
  const model = await makeModel(networks, new Uint16Array(weights));
  const { digit, colour, seed, strength, steps } = AT_START;
  const text = captions[inLanguage({ en: "en", he: "he" })][place(digit)][place(colour)];
  const known = model.encode(makeReader(vocabulary)(text).places);
  const pause = makePause();
  for (const { z, v } of walk(model, seededNoise(seed, model.dim), known, strength, steps)) {
    if (!v) model.paint(z);
    await pause();
  }
  return model;
}

function render({ model, el }) {
  const state = model.get("state");
  const words = inLanguage(WORDS);
  let stop = () => {};
  el.classList.add("live-stage");
  openGate(model, words.about, el, async (weights, took) => {
    const from = performance.now();
    const made = await startModel(state, weights);
    const times = [took, performance.now() - from];
    const told = words.loaded(megabytes(state.bytes), ...times.map(seconds));
    return () => { stop = openStudio(state, made, words, told, el); };
  });
  return () => stop();
}

export default { render };
