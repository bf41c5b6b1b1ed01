// The law from which the next token is drawn, as course_utils/models/gpt/scoring.py has it.

/** The places of the `count` largest values, the largest first. */
export const largest = (values, count) =>
  Array.from(values, (_, i) => i).sort((a, b) => values[b] - values[a]).slice(0, count);

/**
 * softmax(logits/temperature), all but the `top` likeliest left out; 0 leaves none out. At
 * temperature 0 the likeliest is alone.
 */
export function samplingLaw(logits, { temperature, top }) {
  const kept = temperature === 0 ? 1 : top || logits.length;
  const chosen = kept < logits.length ? largest(logits, kept) : Array.from(logits, (_, i) => i);
  const most = logits.reduce((a, b) => Math.max(a, b));
  const law = new Float64Array(logits.length);
  for (const i of chosen) law[i] = Math.exp((logits[i] - most) / (temperature || 1));
  const sum = law.reduce((a, b) => a + b);
  return law.map((share) => share / sum);
}

/** A place of a law, at random. */
export function drawFrom(law) {
  let left = Math.random();
  const place = law.findIndex((share) => (left -= share) < 0);
  return place < 0 ? law.findLastIndex((share) => share > 0) : place; // by rounding none is left
}
