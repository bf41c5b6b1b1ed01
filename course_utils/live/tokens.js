// Byte pairs: a text to tokens and back, as course_utils/data/text.py has them. The state is made
// by course_utils/live/language.py: `pieces`, the bytes of each token as a string of their codes,
// and `merges`, the pairs of tokens that are joined, the earliest first.

// Letters and numbers of Unicode 17, which the tokenizer's tables (Unicode 16) do not know
const UNKNOWN = "\\u088f\\u0c5c\\u0cdc\\ua7ce\\ua7cf\\ua7d2\\ua7d4\\ua7f1\\u{10940}-\\u{10959}"
  + "\\u{10ec5}-\\u{10ec7}\\u{11db0}-\\u{11ddb}\\u{11de0}-\\u{11de9}\\u{16ea0}-\\u{16eb8}"
  + "\\u{16ebb}-\\u{16ed3}\\u{16ff2}-\\u{16ff6}\\u{187f8}-\\u{187ff}\\u{18d09}-\\u{18d1e}"
  + "\\u{18d80}-\\u{18df2}\\u{1e6c0}-\\u{1e6de}\\u{1e6e0}-\\u{1e6e2}\\u{1e6e4}\\u{1e6e5}"
  + "\\u{1e6e7}-\\u{1e6ed}\\u{1e6f0}-\\u{1e6f4}\\u{1e6fe}\\u{1e6ff}\\u{2b73a}-\\u{2b73f}"
  + "\\u{2cea2}-\\u{2cead}\\u{323b0}-\\u{33479}";
const SPACE = "\\p{White_Space}"; // which \s is not quite
const OTHER = `(?:[${UNKNOWN}]|[^${SPACE}\\p{L}\\p{N}])`;
const run = (kind) => ` ?(?:(?![${UNKNOWN}])\\p{${kind}})+`;
// How a text is cut before its bytes are joined: GPT-2's expression
const CUT = new RegExp(
  `'(?:[stmd]|re|ve|ll)|${run("L")}|${run("N")}| ?${OTHER}+|${SPACE}+(?=${SPACE}|$)|${SPACE}+`,
  "gu",
);

const bytesOf = (piece) => Uint8Array.from(piece, (letter) => letter.charCodeAt(0));

/** The function from a text to the numbers of its tokens. */
export function makeEncoder({ pieces, merges }) {
  const number = new Map(pieces.map((piece, i) => [piece, i]));
  const single = Array.from({ length: 256 }, (_, byte) => number.get(String.fromCharCode(byte)));
  const key = (a, b) => a * pieces.length + b;
  const rank = new Map(merges.map(([a, b], i) => [key(a, b), i]));
  const joined = merges.map(([a, b]) => number.get(pieces[a] + pieces[b]));
  const encoder = new TextEncoder();

  /** The earliest pair is joined first, of several the leftmost, until none is left. */
  function wordTokens(word) {
    const tokens = Array.from(encoder.encode(word), (byte) => single[byte]);
    for (;;) {
      let [first, place] = [Infinity, 0];
      for (let i = 0; i + 1 < tokens.length; i++) {
        const found = rank.get(key(tokens[i], tokens[i + 1]));
        if (found < first) [first, place] = [found, i];
      }
      if (first === Infinity) return tokens;
      tokens.splice(place, 2, joined[first]);
    }
  }

  return (text) => (text.match(CUT) ?? []).flatMap(wordTokens);
}

/** The text of pieces that follow one another; bytes that are no character become U+FFFD. */
export const decodeText = (pieces, fatal = false) =>
  new TextDecoder("utf-8", { fatal, ignoreBOM: true }).decode(bytesOf(pieces));

const SIGNS = { " ": "␣", "\n": "↵", "\t": "⇥" };
const hex = (code) => `⟨${code.toString(16).padStart(2, "0")}⟩`;

/** How a token is shown: its characters, with signs for what cannot be seen; or its bytes. */
export function pieceName(piece) {
  let text;
  try {
    text = decodeText(piece, true);
  } catch {
    return Array.from(bytesOf(piece), hex).join(""); // no whole characters
  }
  return text.replace(/[\p{C}\p{Z}]/gu, (sign) => SIGNS[sign] ?? hex(sign.codePointAt(0)));
}
