// Renders formulas for engine/katex.py: one JSON object {tex, options} a line on standard input,
// one JSON object {html} or {error} a line on standard output. Ends when its input ends.
import { createInterface } from "node:readline";
import katex from "katex";

console.warn = () => {}; // Hebrew inside \text{} has no metrics in KaTeX's fonts; browsers cope

for await (const line of createInterface({ input: process.stdin })) {
  const { tex, options } = JSON.parse(line);
  let reply;
  try {
    const html = katex.renderToString(tex, {
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
