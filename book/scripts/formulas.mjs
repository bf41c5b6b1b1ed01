// Renders formulas for engine/katex.py: one JSON object {tex, options} a line on standard input,
// one JSON object {html} or {error} a line on standard output. Ends when its input ends.
import { createInterface } from "node:readline";
import katex from "katex";

console.warn = () => {}; // about letters without metrics, see below

// KaTeX knows no height of Hebrew letters and would set what is above or below them too close:
// an invisible parenthesis inside gives the height.
const hebrewText = /(\\text(?:bf|it|rm)?\{)([^{}]*[\u05d0-\u05ea][^{}]*)\}/g;
const withHeight = (tex) => tex.replace(hebrewText, "$1$2\\vphantom{(}}");

for await (const line of createInterface({ input: process.stdin })) {
  const { tex, options } = JSON.parse(line);
  let reply;
  try {
    const html = katex.renderToString(withHeight(tex), {
      strict: "ignore",
      ...options,
      macros: { ...options.macros }, // KaTeX writes into it
      throwOnError: true,
    });
    reply = { html };
  } catch (error) {
    reply = { error: error.message };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
