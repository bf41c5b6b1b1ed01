// Settings of Sphinx's search script: its words in the page's language, no marking of hits.
"use strict";

var SPHINX_HIGHLIGHT_ENABLED = false;
Object.assign(
  Documentation.TRANSLATIONS,
  JSON.parse(document.getElementById("search-words").textContent),
);

// An excerpt leaves out displays, and reads each formula in the text once: KaTeX writes it twice,
// for eyes and for screen readers.
document.addEventListener("DOMContentLoaded", () => {
  const plain = Search.htmlToText;
  Search.htmlToText = (text, anchor) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    page.querySelectorAll(".katex-mathml, div.math, summary, pre").forEach((one) => one.remove());
    return plain(page.documentElement.outerHTML, anchor);
  };
});
