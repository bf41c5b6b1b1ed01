// What every page does: light and dark, the language switch, copy buttons, the outline.
"use strict";

const root = document.documentElement;
const words = document.body.dataset;

const remember = (key, value) => {
  try {
    localStorage.setItem(key, value);
  } catch {
    // storage is switched off: the choice holds for this page
  }
};

// Light and dark. The page's head sets what was chosen before, else what the system says; without
// scripts, the styles follow the system.
document.getElementById("theme")?.addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  remember("theme", root.dataset.theme);
});

// The section being read: the last one whose heading has passed the upper part of the window.
const sections = [...document.querySelectorAll("article section[id]")];
const currentSection = () => {
  const line = innerHeight / 3;
  return sections.filter((section) => section.getBoundingClientRect().top < line).at(-1);
};

// The language switch keeps the reader's place: sections have the same ids in both editions.
const language = document.getElementById("language");
language?.addEventListener("click", () => {
  remember("edition", language.hreflang);
  const section = scrollY > 0 ? currentSection() : undefined;
  language.hash = section && section !== sections[0] ? section.id : "";
});

// The outline shows where the reader is.
const entries = [...document.querySelectorAll(".outline a.reference")];
if (entries.length > 0) {
  let waiting = false;
  const show = () => {
    waiting = false;
    const id = currentSection()?.id;
    for (const entry of entries) {
      if (id && entry.hash === `#${id}`) entry.setAttribute("aria-current", "true");
      else entry.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(show);
    waiting = true;
  }, { passive: true });
  show();
}

// Folded code: "all code" opens it, on every page until it is switched off again. A link into what
// is folded opens it, and so does printing.
const folded = [...document.querySelectorAll("article details.hide")];
const switches = [...document.querySelectorAll("[data-all-code]")];
const showCode = (open) => {
  for (const one of folded) one.open = open;
  for (const one of switches) one.checked = open;
};
for (const one of switches)
  one.addEventListener("change", () => {
    remember("code", one.checked ? "open" : "");
    showCode(one.checked);
  });
try {
  if (localStorage.getItem("code") === "open") showCode(true);
} catch {
  // storage is switched off: code is folded
}

const openAround = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  let closed = target.closest("details:not([open])");
  if (!closed) return;
  for (; closed; closed = closed.parentElement.closest("details:not([open])")) closed.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", openAround);
openAround();

let closedBefore = [];
addEventListener("beforeprint", () => {
  closedBefore = [...document.querySelectorAll("article details:not([open])")];
  for (const one of closedBefore) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of closedBefore) one.open = false;
});

// Copy buttons on code.
for (const block of document.querySelectorAll(".cell_input .highlight, div[class^=highlight-]:not(.output) > .highlight")) {
  const pre = block.querySelector("pre");
  if (!pre || !navigator.clipboard) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = words.copy;
  button.lang = root.lang;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(pre.textContent.trimEnd());
    button.textContent = words.copied;
    setTimeout(() => { button.textContent = words.copy; }, 1500);
  });
  block.append(button);
}

// What scrolls sideways can be reached from the keyboard.
const scrollers = document.querySelectorAll(".scroll, article pre");
const markScrollers = () => {
  for (const box of scrollers) {
    if (box.scrollWidth > box.clientWidth + 1) {
      box.tabIndex = 0;
      if (box.matches(".math > .scroll")) {
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", words.formula);
      }
    } else box.removeAttribute("tabindex");
  }
};
markScrollers();
document.fonts?.ready.then(markScrollers);
addEventListener("resize", markScrollers);

// "/" goes to the search field.
addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable], .live");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const contents = document.getElementById("contents");
  const field = document.querySelector("article .find input") || contents?.querySelector("input");
  if (!field) return;
  event.preventDefault();
  if (contents.contains(field) && !field.checkVisibility()) contents.showPopover();
  field.focus();
});
