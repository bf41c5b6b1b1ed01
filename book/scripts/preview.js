// What a link within the book leads to, shown in place: a term's definition, an equation, a figure,
// the beginning of a section. On hover and on focus; a tap on a term shows its definition.

const words = document.body.dataset;
const WAIT = 400; // milliseconds over a link before it shows
const pages = new Map();

/** The document behind an address; this one, or one that is fetched once. */
function pageOf(url) {
  const address = url.pathname;
  if (address === location.pathname) return Promise.resolve(document);
  if (!pages.has(address))
    pages.set(address, fetch(url).then((answer) => answer.text())
      .then((text) => new DOMParser().parseFromString(text, "text/html")));
  return pages.get(address);
}

/** A copy of what an element introduces: it shows here and has no ids or addresses of its own. */
function excerpt(target, url) {
  const parts = [];
  if (target.matches("dt")) parts.push(target, target.nextElementSibling);
  else if (target.matches("section, h1, h2, h3, h4")) {
    const section = target.closest("section");
    const heading = section.querySelector("h1, h2, h3, h4");
    const after = [...section.children].filter((one) => one.matches("p, ul, ol"));
    parts.push(heading, ...after.slice(0, 2));
  } else parts.push(target.closest("figure, div.math, tr, li, .citation") ?? target);
  const copies = parts.filter(Boolean).map((part) => part.cloneNode(true));
  for (const copy of copies) {
    copy.removeAttribute("id");
    for (const one of copy.querySelectorAll("[id]")) one.removeAttribute("id");
    for (const one of copy.querySelectorAll("img"))
      one.src = new URL(one.getAttribute("src"), url).href;
    for (const one of copy.querySelectorAll("a[href]"))
      one.href = new URL(one.getAttribute("href"), url).href;
  }
  return copies;
}

const box = document.createElement("div");
box.className = "preview";
box.popover = "manual";
box.id = "preview";
box.setAttribute("role", "tooltip");
document.body.append(box);

let shown = null;
let timer = 0;
let asked = null; // the link whose page is on its way

function hide() {
  clearTimeout(timer);
  asked = null;
  if (!shown) return;
  shown.removeAttribute("aria-describedby");
  shown = null;
  box.hidePopover();
}

async function show(link, withLink = false) {
  asked = link;
  const url = new URL(link.href);
  const page = await pageOf(url);
  const target = page.getElementById(decodeURIComponent(url.hash.slice(1)));
  if (!target || asked !== link) return;
  box.replaceChildren(...excerpt(target, url));
  if (withLink) {
    const go = document.createElement("a");
    go.className = "go";
    go.href = link.href;
    go.textContent = words.go;
    const line = document.createElement("p");
    line.append(go);
    box.append(line);
  }
  hide();
  shown = link;
  link.setAttribute("aria-describedby", box.id);
  box.showPopover();
  const [line] = link.getClientRects();
  const room = line.top - document.querySelector(".top").offsetHeight;
  const width = box.offsetWidth;
  const start = document.documentElement.dir === "rtl" ? line.right - width : line.left;
  box.style.left = `${Math.max(8, Math.min(start, innerWidth - width - 8))}px`;
  const above = room > box.offsetHeight + 16; // what is read next stays in sight
  box.style.top = above ? `${Math.max(8, line.top - box.offsetHeight - 8)}px` : `${line.bottom + 8}px`;
}

const isPreviewed = (link) => {
  if (!link?.hash || link.closest(".preview, .headerlink")) return false;
  return new URL(link.href).origin === location.origin;
};
const later = (link) => {
  clearTimeout(timer);
  timer = setTimeout(() => { show(link); }, WAIT);
};

const article = document.querySelector("article");
article.addEventListener("pointerover", (event) => {
  const link = event.target.closest("a.reference.internal");
  if (event.pointerType === "mouse" && isPreviewed(link) && link !== shown) later(link);
});
article.addEventListener("pointerout", (event) => {
  if (event.pointerType !== "mouse" || box.contains(event.relatedTarget)) return;
  clearTimeout(timer);
  timer = setTimeout(hide, WAIT);
});
box.addEventListener("pointerenter", () => clearTimeout(timer));
box.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse") timer = setTimeout(hide, WAIT);
});
article.addEventListener("focusin", (event) => {
  const link = event.target.closest("a.reference.internal");
  if (isPreviewed(link) && link.matches(":focus-visible")) later(link);
});
// A press within the box takes the focus from the link, and the box must not go before the click.
let pressed = false;
box.addEventListener("pointerdown", () => { pressed = true; });
for (const end of ["pointerup", "pointercancel"])
  addEventListener(end, () => { setTimeout(() => { pressed = false; }, WAIT); });
article.addEventListener("focusout", () => { if (!pressed) hide(); });
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
addEventListener("scroll", () => { if (shown) hide(); }, { passive: true });

// A finger cannot hover: the first tap on a term shows it, and the box leads on.
article.addEventListener("click", (event) => {
  const link = event.target.closest('a[href*="#term-"]');
  if (!link || !matchMedia("(hover: none)").matches) {
    hide();
    return;
  }
  event.preventDefault();
  show(link, true);
});
document.addEventListener("click", (event) => {
  if (shown && !box.contains(event.target) && !article.contains(event.target)) hide();
});
