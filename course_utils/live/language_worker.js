// What the panel of a language model computes, beside the page: see language.js.

import { decode } from "./basics.js";
import { makeGPT, openText } from "./gpt.js";
import { drawFrom, samplingLaw } from "./sampling.js";
import { makeEncoder } from "./tokens.js";

let encode;
let text;

const CALLS = {
  /** The model of a state and of its weights. */
  load({ gpt, tokens }, weights) {
    const turns = gpt.rotation && { cos: decode(gpt.rotation.cos), sin: decode(gpt.rotation.sin) };
    encode = makeEncoder(tokens);
    text = openText(makeGPT({ ...gpt, rotation: turns }, new Uint16Array(weights)), gpt.block);
  },
  /** Takes a text; returns its tokens. */
  read(characters) {
    text.set(encode(characters));
    return text.tokens();
  },
  /** Draws one more token; returns all of them. */
  draw(settings) {
    const tokens = text.tokens();
    const { logits } = text.look(tokens.length - 1);
    text.set([...tokens, drawFrom(samplingLaw(logits.at(-1), settings))]);
    return text.tokens();
  },
  /** What goes on at a place; null where there is none, as the text has changed. */
  look: (place) => (place < text.tokens().length ? text.look(place) : null),
};

onmessage = ({ data: { call, given } }) => {
  try {
    postMessage({ answer: CALLS[call](...given) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
