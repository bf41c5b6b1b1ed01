// From a caption to a picture: its words, the noise of a seed, and the networks of
// course_utils/models/latent_diffusion/model.py. The state is made by course_utils/live/prompt.py.

import { decode, fromHalf, normalPair, turn } from "./basics.js";
import { PIXELS, SIDE } from "./images.js";
import { makeNetwork, softmax } from "./network.js";

// --- words: course_utils/data/captions.py --------------------------------------------------------

const LETTER = "[\\p{L}\\p{N}_]";
const POINTS = "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"; // of Hebrew
const POINTED = new RegExp(`(${LETTER})(${POINTS}+)`, "gu");
const NEXT = new RegExp(`^(${LETTER})(${POINTS}*)`, "u");
const [SHEVA, HIRIQ, LIKE_VAV] = ["\u05b0", "\u05b4", /[\u05b9\u05bb]/]; // holam, qubuts
const NEAR = 0.7; // how alike a word must be to be proposed, of 1

/** A letter as it is written without points: אָדֹם is אדום, and שִׁשָּׁה is שישה. */
function withoutPoints(pointed, letter, points, at, text) {
  if (letter !== "ו" && LIKE_VAV.test(points)) return `${letter}ו`;
  const after = points.includes(HIRIQ) && NEXT.exec(text.slice(at + pointed.length));
  return after && after[1] !== "י" && !after[2].includes(SHEVA) ? `${letter}י` : letter;
}

/** A letter without its case: ß as ss, a final sigma as any other; ı is no i. */
const folded = (letter) =>
  (letter === "ı" ? letter : letter.toLowerCase().toUpperCase().toLowerCase());

/** The words of a text in lower case, without points, accents and punctuation. */
export function plainWords(text) {
  const letters = text.normalize("NFKD").replace(POINTED, withoutPoints)
    .replace(/[\p{Mn}\p{Cf}]/gu, "");
  return Array.from(letters, folded).join("").match(/[\p{L}\p{N}]+/gu) ?? [];
}

/** How many letters two words share: in their longest run, and then on either side of it. */
function sharedLetters(a, b) {
  let [longest, inA, inB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++)
    for (let j = 0; j < b.length; j++) {
      let length = 0;
      while (i + length < a.length && a[i + length] === b[j + length]) length++;
      if (length > longest) [longest, inA, inB] = [length, i, j];
    }
  if (longest === 0) return 0;
  const before = sharedLetters(a.slice(0, inA), b.slice(0, inB));
  return longest + before + sharedLetters(a.slice(inA + longest), b.slice(inB + longest));
}

/** The known word that is most like another, if any is. */
function nearWord(word, known) {
  const alike = (each) => (2 * sharedLetters(each, word)) / (each.length + word.length);
  let [best, found] = [NEAR, undefined];
  for (const each of known) {
    const share = alike(each);
    if (share > best || (share === best && (found ?? "") < each)) [best, found] = [share, each];
  }
  return found;
}

/**
 * The function from a text to its { words, places, missing }: the words, their places in the
 * vocabulary, and those that are not there, each { word, near }.
 */
export function makeReader({ words: known }) {
  const place = new Map(known.map((word, i) => [word, i + 1]));
  return (text) => {
    const words = plainWords(text);
    const unknown = [...new Set(words.filter((word) => !place.has(word)))];
    const missing = unknown.map((word) => ({ word, near: nearWord(word, known) }));
    return { words, places: words.map((word) => place.get(word)), missing };
  };
}

/** The digit and the colour that a caption says, −1 for none and for several. */
export function saidBy(words, named) {
  const found = { digit: new Set(), colour: new Set() };
  for (let i = 0; i < words.length;) {
    const each = named.find((one) => one.words.every((word, k) => word === words[i + k]));
    if (each) found["digit" in each ? "digit" : "colour"].add(each.digit ?? each.colour);
    i += each ? each.words.length : 1;
  }
  const only = (set) => (set.size === 1 ? [...set][0] : -1);
  return { digit: only(found.digit), colour: only(found.colour) };
}

// --- noise ---------------------------------------------------------------------------------------

/** A source of numbers in [0, 1) that a whole number fixes: mulberry32. */
function seeded(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** ε ~ N(0, I) of a seed; torch has other noise for it. */
export function seededNoise(seed, dim) {
  const random = seeded(seed);
  const pairs = Array.from({ length: Math.ceil(dim / 2) }, () => normalPair(random));
  return Float32Array.from(pairs.flat().slice(0, dim));
}

// --- work in slices ------------------------------------------------------------------------------

const SLICE = 16; // milliseconds of work before the page gets its turn

/** A function to be awaited amid some work: it gives the page its turn once a slice is over. */
export function makePause() {
  let rest = performance.now() + SLICE;
  return async () => {
    if (performance.now() < rest) return;
    await turn();
    rest = performance.now() + SLICE;
  };
}

// --- the networks --------------------------------------------------------------------------------

const SOME = 50_000; // weights

/** γ(t, log(1 − t)), as TimeFeatures in course_utils/models/flow_matching/velocity.py. */
function timeFeatures(t, { time_k: waves, nearest }) {
  const both = [t, Math.log(1 - t + nearest) / -Math.log(nearest)];
  const angles = both.flatMap((value) => waves.map((k) => k * value));
  return [...both, ...angles.map(Math.sin), ...angles.map(Math.cos)];
}

/** Float16 → numbers, some at a time. */
async function wholeOf(halves) {
  const values = new Float32Array(halves.length);
  const pause = makePause();
  for (let from = 0; from < halves.length; from += SOME) {
    values.set(fromHalf(halves.subarray(from, from + SOME)), from);
    await pause();
  }
  return values;
}

/**
 * The model of a state and of its weights, whole numbers of 16 bits:
 *
 *     encode(places)                       what a text says
 *     velocity(z, t, known, strength)      guided; `known` is null without a text
 *     paint(z)                             the picture, in [0, 1]
 *     read(picture)                        the probabilities of the digits, if it has a classifier
 */
export async function makeModel(state, halves) {
  const { words, embedding } = state;
  const [mean, std] = [decode(state.mean), decode(state.std)];
  const dim = mean.length;
  const values = await wholeOf(halves);
  let next = 0;
  const take = (count) => values.subarray(next, next += count);
  const table = take(words * embedding);
  const nothing = take(embedding);
  const pause = makePause();
  const network = async (layers, shape) => {
    await pause();
    return makeNetwork(layers, shape, take);
  };
  const mix = await network(state.mix, [embedding]);
  const inputs = dim + timeFeatures(0, state).length + embedding;
  const net = await network(state.net, [inputs]);
  const decoder = await network(state.decoder, [dim]);
  const classifier = await network(state.classifier, [1, SIDE, SIDE]);

  function encode(places) {
    const sum = new Float32Array(embedding);
    for (const place of places)
      for (let i = 0; i < embedding; i++) sum[i] += table[place * embedding + i];
    return mix(sum.map((value) => value / Math.sqrt(places.length)));
  }

  function plain(z, t, known) {
    const c = Math.hypot(t, 1 - t);
    const guess = net([...z.map((value) => value / c), ...timeFeatures(t, state), ...known]);
    return z.map((value, i) => ((2 * t - 1) / (c * c)) * value + guess[i] / c);
  }

  function velocity(z, t, known, strength) {
    if (known && strength === 1) return plain(z, t, known);
    const without = plain(z, t, nothing);
    if (!known || strength === 0) return without;
    const given = plain(z, t, known);
    return without.map((value, i) => value + strength * (given[i] - value));
  }

  const paint = (z) => decoder(z.map((value, i) => mean[i] + std[i] * value))
    .map((value) => Math.min(1, Math.max(0, value)));

  function read(picture) {
    if (state.classifier.length === 0) return null;
    const grey = Array.from({ length: PIXELS }, (_, p) =>
      Math.max(picture[p], picture[PIXELS + p], picture[2 * PIXELS + p]));
    return softmax(classifier(grey));
  }

  return { dim, encode, velocity, paint, read };
}

/** dz/dt = v by Euler's method, step by step: { t, z, v }, and at the end z alone, at t = 1. */
export function* walk({ velocity }, noise, known, strength, steps) {
  let z = noise;
  for (let n = 0; n < steps; n++) {
    const t = n / steps;
    const v = velocity(z, t, known, strength);
    yield { t, z, v };
    z = z.map((value, i) => value + v[i] / steps);
  }
  yield { t: 1, z };
}

/** Where a straight line from time t would end, z + (1 − t)·v. */
export const expectedEnd = ({ t, z, v }) => (v ? z.map((value, i) => value + (1 - t) * v[i]) : z);
