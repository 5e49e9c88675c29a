/** The pay page: what is asked and for what, a card that the client keeps or that Stripe's own frame takes, and the end. */

import { LANGUAGES, choose } from "/pay/words.js";

/** How often it asks while a bank decides. */
const POLL_MS = 2000;
/** Each session's secret under a key of its own: one tab may see several. */
const KEPT = "parley-pay:";
const FORM_STATES = ["due", "hold", "confirm"];
const OVER_STATES = ["paid", "held", "nothing"];
const NEW = "new";
const MOST_MEETINGS = 6;
/** Of what a card may be refused for, these the page has words of its own for. */
const TOLD = ["insufficient_funds", "card_brand_not_supported"];
const BRANDS = { visa: "Visa", mastercard: "Mastercard", amex: "American Express", discover: "Discover", diners: "Diners Club", jcb: "JCB", unionpay: "UnionPay" };

const $ = (id) => document.getElementById(id);
let language = choose(...navigator.languages);
let tag = navigator.language;
let shown = null;
let busy = false;
let stripe = null;
let card = null;
/** The id of a kept card, or NEW; null before the client could choose. */
let chosen = null;

/** Whose a secret is: it is a token that names its session, as the bank's way back does. */
function sessionOf(secret) {
  try {
    return JSON.parse(atob(secret.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))).sid;
  } catch {
    return ""; // no secret of ours
  }
}

/** What the link says, out of the address bar before anybody else's script runs here: a secret, or which session the bank
 * sends the client back for, and how that went. A reload finds it again. */
function entrance() {
  const query = new URLSearchParams(location.search);
  const session = query.get("session");
  const given = location.hash.slice(1);
  if (given) sessionStorage.setItem(KEPT + sessionOf(given), given);
  const token = given || (session && sessionStorage.getItem(KEPT + session)) || "";
  const said = { token, returned: session !== null, refused: query.get("redirect_status") === "failed" };
  const way = token || session ? said : history.state ?? said;
  history.replaceState(way, "", "/pay");
  return way;
}

const { token, returned, refused } = entrance();

const say = (key, values = {}) =>
  LANGUAGES[language][key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

function money(amount) {
  const figure = new Intl.NumberFormat(tag, { minimumFractionDigits: 2 }).format(amount / 100);
  return `${figure} ${shown.currency.toUpperCase()}`;
}

const minutes = (seconds) => say("minutes", { minutes: Math.round(seconds / 60) });
const clock = (seconds) => say("minutes", { minutes: `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}` });
const timeZone = () => shown.timezone ?? undefined;
const date = (ms) => new Intl.DateTimeFormat(tag, { dateStyle: "long", timeZone: timeZone() }).format(ms);
const moment = (ms) => new Intl.DateTimeFormat(tag, { dateStyle: "medium", timeStyle: "short", timeZone: timeZone() }).format(ms);
const cardName = ({ brand, last4 }) => `${BRANDS[brand] ?? brand} ••••\u00a0${last4}`;

function put(id, text) {
  $(id).textContent = text ?? "";
  $(id).hidden = !text;
}

function made(name, className, ...children) {
  const element = Object.assign(document.createElement(name), { className });
  element.append(...children);
  return element;
}

function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const [svg, use] = [document.createElementNS(space, "svg"), document.createElementNS(space, "use")];
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

async function ask(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token, ...body }),
  });
  const said = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(said.detail), { code: said.code, status: answer.status });
  return said;
}

// ---------------------------------------------------------------------------------------------------- what is shown

function draw(next) {
  shown = next;
  language = choose(shown.locale, ...navigator.languages);
  tag = shown.locale.startsWith(language) ? shown.locale : language;
  document.documentElement.lang = language;
  const figure = money(shown.amount);
  put("test", shown.livemode ? "" : say("test"));
  const over = OVER_STATES.includes(shown.state);
  put("eyebrow", over ? "" : say({ hold: "hold", bill: "due", booking: "fee" }[shown.asks]));
  $("amount").textContent = figure;
  put("about", about());
  drawPrice();
  drawOutcome(figure);
  drawForm(figure);
  document.title = `${figure} · Parley`;
  document.documentElement.dataset.state = shown.state;
  document.documentElement.toggleAttribute("data-asking", FORM_STATES.includes(shown.state));
}

function about() {
  const { asks, expert, meetings, started_at: at } = shown;
  if (asks === "booking") {
    return say("about_booking", { expert, count: meetings.length, minutes: shown.limit_seconds / 60 });
  }
  const words = say(shown.media === "voice" ? "about_voice" : "about_video", { expert });
  return at ? say("about_at", { about: words, date: date(at) }) : words;
}

/** How the amount comes about, before any money moves. */
function drawPrice() {
  const rate = [say("per_minute"), money(shown.unit_amount)];
  const free = shown.free_seconds > 0 && [say("free_part"), minutes(shown.free_seconds)];
  const rows = {
    hold: () => [rate, free, [say("longest"), minutes(shown.limit_seconds)], [say("most"), money(shown.amount), "strong"]],
    bill: () => [
      shown.billable_seconds !== null && [say("billed"), clock(shown.billable_seconds)], rate, [say("total"), money(shown.amount), "strong"],
    ],
    booking: () => [...meetingRows(), rate, [say("total"), money(shown.amount), "strong"]],
  }[shown.asks]();
  const lines = shown.amount === 0 ? [] : rows.filter(Boolean);
  $("price").replaceChildren(
    ...lines.map(([name, value, kind]) => made("div", kind ?? "", made("dt", "", name), made("dd", "", value))),
  );
}

/** Each meeting's time; of many the first and the last. */
function meetingRows() {
  const rows = shown.meetings.map((at, index) => [say("meeting", { number: index + 1 }), at && moment(at)]);
  if (shown.meetings.every((at) => at === null)) return [[say("meetings"), say("any_time")]];
  return rows.length > MOST_MEETINGS ? [rows[0], rows.at(-1)] : rows;
}

function drawOutcome(figure) {
  const { state, card: used, decline_code: code } = shown;
  const name = used ? cardName(used) : "";
  const told = {
    paid: say(used ? "paid" : "paid_plain", { card: name }),
    held: say(used ? "held" : "held_plain", { card: name }),
    working: say("working"),
    confirm: say("bank"),
    nothing: say("nothing"),
  };
  put("status", told[state]);
  $("status").classList.toggle("busy", state === "working");
  const declined = code && (state === "due" || state === "hold");
  put("problem", declined ? say(TOLD.includes(code) ? code : "declined", { amount: figure }) : "");
  $("done").hidden = state !== "paid" && state !== "held";
  $("action").hidden = state !== "confirm" || !shown.action_url;
  $("action").textContent = say("confirm");
  if (!$("action").hidden) $("action").href = shown.action_url;
  put("receipt", state === "paid" && shown.receipt ? say("receipt") : "");
  if (shown.receipt) $("receipt").href = shown.receipt;
}

function drawForm(figure) {
  const wanted = FORM_STATES.includes(shown.state);
  const ways = wanted && (shown.form !== null || shown.cards.length > 0);
  if (ways) drawCards();
  $("cards").hidden = $("submit").hidden = !ways;
  $("submit").classList.toggle("primary", shown.state !== "confirm");
  $("cards-label").textContent = say(shown.state === "confirm" ? "other" : shown.cards.length ? "pay_with" : "card");
  $("submit").textContent = say(shown.asks === "hold" ? "reserve" : "pay", { amount: figure });
  $("submit").disabled = !ready();
  const lost = shown.asks === "bill" && !shown.decline_code;
  const why = { hold: say("why_hold"), bill: lost ? say("why_due") : "", booking: say("why_fee") }[shown.asks];
  put("why", wanted || shown.state === "held" ? why : "");
  $("secure").hidden = !wanted;
  $("secure-text").textContent = say(ways ? "secure" : "elsewhere");
}

const ready = () => !busy && (chosen === NEW ? card !== null : chosen !== null);

/** The cards that the client keeps at Stripe, and the way to another one. One that is drawn already stays as it is. */
function drawCards() {
  const ids = [...shown.cards.map(({ id }) => id), ...(shown.form ? [NEW] : [])];
  if (!ids.includes(chosen)) chosen = ids[0];
  if ($("kept").dataset.ids !== ids.join()) {
    $("kept").dataset.ids = ids.join();
    $("kept").replaceChildren(...(shown.cards.length ? [...shown.cards.map(keptWay), ...(shown.form ? [newWay()] : [])] : []));
  }
  $("card-box").hidden = chosen !== NEW;
  if (chosen === NEW && stripe === null) loadForm();
}

function keptWay(kept) {
  const until = say("until", { date: `${String(kept.exp_month).padStart(2, "0")}/${kept.exp_year}` });
  return way(kept.id, "card", cardName(kept).replace("American Express", "Amex"), until);
}

const newWay = () => way(NEW, "plus", say("another"), "");

function way(id, picture, name, aside) {
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "way", value: id, checked: id === chosen });
  radio.addEventListener("change", () => {
    chosen = id;
    draw(shown);
  });
  const label = made("label", "way", radio, icon(picture), made("span", "name", name), made("span", "aside", aside));
  label.dataset.testid = id === NEW ? "pay-new" : "pay-kept";
  return label;
}

function ending(title, text) {
  document.documentElement.lang = language;
  for (const id of ["eyebrow", "status", "problem", "why"]) put(id, "");
  for (const id of ["done", "action", "cards", "submit", "secure", "receipt"]) $(id).hidden = true;
  $("price").replaceChildren();
  $("amount").classList.add("words");
  $("amount").textContent = title;
  put("about", text);
  document.documentElement.removeAttribute("data-asking");
  document.documentElement.dataset.state = "ending";
}

// ------------------------------------------------------------------------------------------------------- the card

/** Stripe's script is loaded only when another card is asked for. */
function loadForm() {
  stripe = false;
  const script = document.createElement("script");
  script.src = shown.form.script;
  script.onload = mountCard;
  script.onerror = () => {
    stripe = null;
    put("problem", say("form_away"));
  };
  document.head.append(script);
}

function mountCard() {
  stripe = window.Stripe(shown.form.key);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const base = { fontSize: "16px", color: dark ? "#edf1ec" : "#17211d", "::placeholder": { color: "#7a8580" } };
  const element = stripe.elements({ locale: language }).create("card", { style: { base } });
  element.on("ready", () => {
    card = element;
    draw(shown);
  });
  element.mount("#card");
}

async function tryCard() {
  const { paymentMethod, error } =
    chosen === NEW ? await stripe.createPaymentMethod({ type: "card", card }) : { paymentMethod: { id: chosen } };
  if (error) return put("problem", error.message);
  const next = await ask("/pay/card", { payment_method: paymentMethod.id, attempt: shown.attempt });
  if (next.state === "confirm" && next.action_url) return location.assign(next.action_url);
  draw(next);
  $("amount").focus({ preventScroll: true });
  follow();
}

$("slip").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!ready()) return;
  busy = $("submit").disabled = true;
  put("problem", "");
  try {
    await tryCard();
  } catch ({ code, status }) {
    await afterRefusal(code, status);
  } finally {
    busy = false;
    $("submit").disabled = !ready();
  }
});

async function afterRefusal(code, status) {
  if (code === "too_many_cards") return put("problem", say("too_many"));
  if (code === "expert_not_payable") return put("problem", say("not_payable"));
  await look();
  if (status) put("problem", say("moved"));
}

// ------------------------------------------------------------------------------------------------------- following

async function look() {
  try {
    draw(await ask("/pay/open", {}));
  } catch ({ code }) {
    if (code?.startsWith("link_")) ending(say("link_title"), say("link_text"));
    else if (shown) put("problem", say("away"));
    else ending(say("away"), "");
    return code?.startsWith("link_") ? "over" : "again";
  }
}

// Another session's link opened in this tab changes the fragment only, and would leave this session's page standing.
addEventListener("hashchange", () => location.reload());

let following = false;

/** Looks again while something is decided elsewhere. */
async function follow() {
  if (following) return;
  following = true;
  while (!shown || ["working", "confirm"].includes(shown.state)) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (!busy && (await look()) === "over") break;
  }
  following = false;
}

if (!token) {
  if (refused) ending(say("refused_title"), say("refused_text"));
  else if (returned) ending(say("done_title"), say("back"));
  else ending(say("link_title"), say("link_text"));
} else if ((await look()) !== "over") {
  follow();
}
