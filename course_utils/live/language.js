// A panel of a small GPT: the reader types a text, the model continues it and shows what goes on
// inside. It runs in a worker, language_worker.js, once the reader has loaded its weights. The
// state is made by course_utils/live/language.py.

import { percent } from "./bars.js";
import { element, inLanguage } from "./basics.js";
import {
  openButtons, openChips, openLens, openLook, openNext, openPrompt, openSettings, openText, tell,
} from "./language_parts.js";
import { largest, samplingLaw } from "./sampling.js";
import { decodeText, pieceName } from "./tokens.js";
import { megabytes, openGate, seconds, tellLoaded } from "./weights.js";

const WORDS = {
  en: {
    about: (weights) => `A small GPT with ${weights} weights, which runs here, on your device.`,
    loaded: (size, load, make, first) =>
      `${size} were loaded in ${load} s; the model was ready ${make} s later, and its first`
      + ` prediction took ${first} s.`,
    prompt: "Prompt, in English",
    temperature: "Temperature",
    top: "Only the likeliest",
    all: "all",
    write: "Continue",
    stop: "Stop",
    one: "One token",
    anew: "Back to the prompt",
    empty: "Type a text that the model is to continue.",
    tokens: (count) => `Its ${count} tokens: the darker, the more the chosen one looks at it`,
    token: (number, name) => `Token ${number}: ${name}`,
    window: (block) => `The model sees at most ${block} tokens; dashed ones it does not see.`,
    next: "What may come after {}",
    shares: "Probability of each token",
    stands: (share, rank) => `What stands there is {}: ${share}, rank ${rank}.`,
    left: "What stands there is {}, which is never drawn with these settings.",
    lens: "What each block would predict, at temperature 1",
    before: "Before block 1",
    after: (block) => `After block ${block}`,
    block: "Block",
    head: "Head",
    mean: "mean",
    looks: "Where {} looks",
  },
  he: {
    about: (weights) => `GPT קטן עם ${weights} משקלים, שרץ כאן, במכשיר שלכם.`,
    loaded: (size, load, make, first) =>
      `נטענו ${size} בתוך ${load} שניות; המודל היה מוכן כעבור ${make} שניות, והחיזוי הראשון`
      + ` נמצא בתוך ${first} שניות.`,
    prompt: "הנחיה, באנגלית",
    temperature: "טמפרטורה",
    top: "רק הסבירים ביותר",
    all: "כולם",
    write: "המשך",
    stop: "עצירה",
    one: "טוקן אחד",
    anew: "חזרה להנחיה",
    empty: "הקלידו טקסט שהמודל ימשיך.",
    tokens: (count) => `${count} הטוקנים שלו: ככל שטוקן כהה יותר, הטוקן שנבחר מביט בו יותר`,
    token: (number, name) => `טוקן ${number}: ${name}`,
    window: (block) => `המודל רואה לכל היותר ${block} טוקנים; את המקווקווים אינו רואה.`,
    next: "מה עשוי לבוא אחרי {}",
    shares: "ההסתברות של כל טוקן",
    stands: (share, rank) => `בטקסט בא כאן {}: ${share}, מקום ${rank} ברשימה.`,
    left: "בטקסט בא כאן {}, שבהגדרות האלה לא יידגם לעולם.",
    lens: "מה כל בלוק היה חוזה, בטמפרטורה 1",
    before: "לפני בלוק 1",
    after: (block) => `אחרי בלוק ${block}`,
    block: "בלוק",
    head: "ראש קשב",
    mean: "ממוצע",
    looks: "לאן מביט {}",
  },
};
const WRITES = 80; // tokens at a time
const MOST = 1500; // tokens of a text
const SEEN = 3; // tokens that are named as looked at

// --- the model, beside the page ------------------------------------------------------------------

/** The worker: `ask(call, …)` promises its answer; `close()` ends it. */
export function openEngine() {
  const address = new URL("./language_worker.js", import.meta.url);
  const worker = new Worker(address, { type: "module" });
  const waiting = [];
  worker.addEventListener("message", ({ data: { error, answer } }) => {
    const first = waiting.shift(); // it answers one call after the other
    if (error) first.fail(new Error(error));
    else first.done(answer);
  });
  worker.addEventListener("error", ({ message }) => {
    for (const { fail } of waiting.splice(0)) fail(new Error(message || "no worker"));
  });
  const ask = (call, ...given) => new Promise((done, fail) => {
    waiting.push({ done, fail });
    const moved = given.filter((each) => each instanceof ArrayBuffer);
    worker.postMessage({ call, given }, moved);
  });
  return { ask, close: () => worker.terminate() };
}

/** Makes the model in a worker of its own; returns how long that and a first look took, in ms. */
async function startEngine(engine, { gpt, tokens, prompt }, weights) {
  const loaded = performance.now();
  await engine.ask("load", { gpt, tokens }, weights);
  const made = performance.now();
  const read = await engine.ask("read", prompt);
  await engine.ask("look", read.length - 1);
  return [made - loaded, performance.now() - made];
}

// --- the panel -----------------------------------------------------------------------------------

function openPlayground({ gpt, tokens: { pieces }, prompt }, words, engine, told, el) {
  const names = pieces.map(pieceName);
  let tokens = []; // of the whole text
  let own = 0; // how many of them are the prompt's
  let chosen = -1; // a place
  let seen = null; // what goes on there
  let writing = false;
  let reads = 0; // of the prompt

  tellLoaded(told, el);
  const box = openPrompt(words, prompt, el);
  const settings = openSettings(words, el, () => showNext());
  const acts = { write: () => write(WRITES), stop, one: () => write(1), anew: read };
  const showButtons = openButtons(words, el, acts);
  const showText = openText(words, el);
  const chips = openChips(words, gpt.block, el, choose);
  const sides = element("div", { className: "live-sides" }, el);
  const showNextOf = openNext(words, names, sides);
  const inside = element("div", { className: "live-inside" }, sides);
  const lookTitle = element("p", { className: "live-title" }, inside);
  const looksAt = element("p", {}, inside);
  const weightsOf = openLook(words, gpt, inside, () => showLook());
  const showLens = openLens(words, names, gpt.depth, inside);

  function showNext() {
    if (!seen) return;
    const law = samplingLaw(seen.logits.at(-1), settings);
    showNextOf(names[tokens[chosen]], law, tokens[chosen + 1]);
  }

  function showLook() {
    if (!seen) return;
    const weights = weightsOf(seen.attention);
    chips.shade(weights, seen.start);
    tell(lookTitle, words.looks, names[tokens[chosen]]);
    const most = largest(weights, SEEN);
    const told = most.map((s) => `{} ${percent(weights[s])}`).join(", ");
    tell(looksAt, told, ...most.map((s) => names[tokens[seen.start + s]]));
  }

  async function choose(place) {
    chosen = place;
    const found = await engine.ask("look", place);
    if (!found || place !== chosen) return; // a newer choice has replaced this one
    seen = found;
    chips.mark(place);
    showNext();
    showLook();
    showLens(seen.logits);
  }

  function showTokens(found) {
    tokens = found;
    chips.show(tokens.map((token) => names[token]), own);
    const text = (part) => decodeText(part.map((token) => pieces[token]).join(""));
    showText(box.value, text(tokens.slice(own)), writing);
    showButtons(writing, tokens.length === 0, tokens.length >= MOST);
    sides.hidden = tokens.length === 0;
  }

  /** The prompt, without what was written after it. */
  async function read() {
    stop();
    const mine = ++reads;
    const found = await engine.ask("read", box.value);
    if (mine !== reads) return;
    own = found.length;
    seen = null;
    showTokens(found);
    if (own) await choose(own - 1);
  }

  async function write(count) {
    if (writing) return;
    const mine = reads;
    writing = true;
    showTokens(tokens);
    for (let i = 0; i < count && writing && tokens.length < MOST; i++) {
      const found = await engine.ask("draw", { ...settings });
      if (mine !== reads) return; // the prompt has changed
      showTokens(found);
    }
    stop();
    showTokens(tokens);
    choose(tokens.length - 1);
  }

  function stop() {
    writing = false;
  }

  box.addEventListener("input", read);
  read();
  return stop;
}

function render({ model, el }) {
  const state = model.get("state");
  const words = inLanguage(WORDS);
  let engine = null;
  let stop = () => {};
  el.classList.add("live-stage");
  openGate(model, words.about, el, async (weights, took) => {
    engine = openEngine();
    try {
      const times = [took, ...await startEngine(engine, state, weights)];
      const told = words.loaded(megabytes(state.bytes), ...times.map(seconds));
      return () => { stop = openPlayground(state, words, engine, told, el); };
    } catch (error) {
      engine.close();
      throw error;
    }
  });
  return () => {
    stop();
    engine?.close();
  };
}

export default { render };
