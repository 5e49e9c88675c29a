// The documentation page's own conveniences; everything on it reads without them.
const root = document.documentElement;

const theme = document.getElementById("theme");
const kept = localStorage.getItem("parley-docs-theme");
if (kept) root.dataset.theme = kept;
theme.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("parley-docs-theme", root.dataset.theme);
});

const contents = document.getElementById("contents");
const narrow = matchMedia("(max-width: 60rem)");
const fold = () => { contents.open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
document.addEventListener("click", (event) => {
  if (narrow.matches && (event.target.closest("nav a") || !event.target.closest("nav"))) contents.open = false;
});

const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const block of document.querySelectorAll("[data-find]")) {
    const text = block.dataset.find.toLowerCase();
    block.hidden = !words.every((word) => text.includes(word));
  }
  for (const topic of document.querySelectorAll(".lead, .topic")) topic.hidden = words.length > 0;
  for (const set of document.querySelectorAll(".set, .group")) set.hidden = !set.querySelector("[data-find]:not([hidden])");
  scrollTo(0, 0);
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== filter) {
    event.preventDefault();
    filter.focus();
  }
});

for (const block of document.querySelectorAll("pre")) {
  const button = document.createElement("button");
  button.className = "copy";
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("code").innerText);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  const holder = document.createElement("div");
  holder.className = "holder";
  block.replaceWith(holder);
  holder.append(block, button);
}

const links = new Map([...contents.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-10% 0px -80% 0px" });
for (const id of links.keys()) {
  const target = document.getElementById(id);
  if (target) seen.observe(target);
}
