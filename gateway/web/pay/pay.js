/** The pay page: what is asked, a card that Stripe's own frame takes, and what became of it. */

import { LANGUAGES, choose } from "/pay/words.js";

/** How often it asks while a bank decides. */
const POLL_MS = 2000;
const SECRET = "parley-pay";
const FORM_STATES = ["due", "hold", "confirm"];
const BRANDS = { visa: "Visa", mastercard: "Mastercard", amex: "American Express", discover: "Discover", diners: "Diners Club", jcb: "JCB", unionpay: "UnionPay" };

const $ = (id) => document.getElementById(id);
let language = choose(...navigator.languages);
let tag = navigator.language;
let shown = null;
let busy = false;
let stripe = null;
let card = null;

/** Out of the address bar before anybody else's script runs here; a way back from the bank finds it again. */
function ownSecret() {
  const given = location.hash.slice(1);
  if (given) sessionStorage.setItem(SECRET, given);
  const returned = new URLSearchParams(location.search).has("session");
  history.replaceState(null, "", "/pay");
  return { secret: sessionStorage.getItem(SECRET) ?? "", returned };
}

const { secret: token, returned } = ownSecret();

const say = (key, values = {}) =>
  LANGUAGES[language][key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

function money(amount, currency) {
  const code = currency.toUpperCase();
  const figure = new Intl.NumberFormat(tag, { minimumFractionDigits: 2 }).format(amount / 100);
  return `${figure} ${code}`;
}

const cardName = ({ brand, last4 }) => `${BRANDS[brand] ?? brand} •••• ${last4}`;

function put(id, text) {
  $(id).textContent = text ?? "";
  $(id).hidden = !text;
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
  const figure = money(shown.amount, shown.currency);
  put("test", shown.livemode ? "" : say("test"));
  put("eyebrow", say({ hold: "hold", bill: "due", booking: "fee" }[shown.asks]));
  $("amount").textContent = figure;
  put("about", about());
  drawOutcome(figure);
  drawForm(figure);
  document.title = `${figure} · Parley`;
  document.documentElement.dataset.state = shown.state;
}

function about() {
  if (shown.asks === "booking") {
    return say("about_booking", { expert: shown.expert, count: shown.meetings.length, minutes: shown.limit_seconds / 60 });
  }
  const words = say(shown.media === "voice" ? "about_voice" : "about_video", { expert: shown.expert });
  if (!shown.started_at) return words;
  const date = new Intl.DateTimeFormat(tag, { dateStyle: "long" }).format(shown.started_at);
  return say("about_at", { about: words, date });
}

// Of what the card was refused for, these the page has words of its own for.
const TOLD = ["insufficient_funds", "card_brand_not_supported"];

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
  const refused = code && (state === "due" || state === "hold");
  put("problem", refused ? say(TOLD.includes(code) ? code : "declined", { amount: figure }) : "");
  if (["paid", "nothing", "held"].includes(state)) put("eyebrow", "");
  $("action").hidden = state !== "confirm" || !shown.action_url;
  $("action").textContent = say("confirm");
  if (!$("action").hidden) $("action").href = shown.action_url;
  put("receipt", state === "paid" && shown.receipt ? say("receipt") : "");
  if (shown.receipt) $("receipt").href = shown.receipt;
}

function drawForm(figure) {
  const wanted = FORM_STATES.includes(shown.state);
  const here = wanted && shown.form !== null;
  $("card-box").hidden = $("submit").hidden = !here;
  $("submit").classList.toggle("primary", shown.state !== "confirm");
  $("card-label").textContent = say(shown.state === "confirm" ? "other" : "card");
  $("submit").textContent = say(shown.asks === "hold" ? "reserve" : "pay", { amount: figure });
  $("submit").disabled = busy || card === null;
  const why = shown.asks === "bill" && shown.decline_code ? "" : say({ hold: "why_hold", bill: "why_due", booking: "why_fee" }[shown.asks]);
  put("small", !wanted ? "" : here ? [why, say("secure")].filter(Boolean).join(" ") : say("elsewhere"));
  if (here && stripe === null) loadForm();
}

function ending(title, text) {
  document.documentElement.lang = language;
  for (const id of ["eyebrow", "status", "problem", "small"]) put(id, "");
  for (const id of ["action", "card-box", "submit", "receipt"]) $(id).hidden = true;
  $("amount").classList.add("words");
  $("amount").textContent = title;
  put("about", text);
  document.documentElement.dataset.state = "ending";
}

// ------------------------------------------------------------------------------------------------------- the card

/** Stripe's script is loaded only when a card is asked for. */
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
  const made = stripe.elements({ locale: language }).create("card", { style: { base } });
  made.on("ready", () => {
    card = made;
    draw(shown);
  });
  made.mount("#card");
}

async function tryCard() {
  const { paymentMethod, error } = await stripe.createPaymentMethod({ type: "card", card });
  if (error) return put("problem", error.message);
  const next = await ask("/pay/card", { payment_method: paymentMethod.id, attempt: shown.attempt });
  if (next.state === "confirm" && next.action_url) return location.assign(next.action_url);
  draw(next);
  $("amount").focus({ preventScroll: true });
  follow();
}

$("slip").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy || !card) return;
  busy = $("submit").disabled = true;
  put("problem", "");
  try {
    await tryCard();
  } catch ({ code, status }) {
    await afterRefusal(code, status);
  } finally {
    busy = false;
    $("submit").disabled = card === null;
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
  if (returned) ending(say("done_title"), say("back"));
  else ending(say("link_title"), say("link_text"));
} else if ((await look()) !== "over") {
  follow();
}
