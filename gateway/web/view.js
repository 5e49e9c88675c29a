/** What the call page shows: pure drawing from values. It knows the page's elements, and nothing of the call's protocol. */

import { hasWords, languageOf, spoken, words } from "/static/strings.js";

export const $ = (id) => document.getElementById(id);
const root = document.documentElement;

export let say = words(navigator.language);
let locale = spoken(navigator.language);

/** Sets the page's language for words, numbers and dates. */
export function speak(language) {
  locale = spoken(language || navigator.language);
  say = words(locale);
  root.lang = locale;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) label(element, say(element.dataset.label));
}

/** A button's name for everybody: as a tooltip and for screen readers. */
export function label(element, text) {
  element.setAttribute("aria-label", text);
  element.title = text;
}

// ------------------------------------------------------------------------------------------ numbers, times and money

/** "75.00 USD": minor units in the page's locale, with the currency's code, since signs differ in meaning by place. */
export function money(minor, currency) {
  const code = currency.toUpperCase();
  const { maximumFractionDigits: digits } = new Intl.NumberFormat(locale, { style: "currency", currency: code }).resolvedOptions();
  const number = new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return `${number.format(minor / 10 ** digits)} ${code}`;
}

export const percent = (bps) =>
  new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 2 }).format(bps / 10000);

/** "4:05", "1:04:05". */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, at) => (at ? String(part).padStart(2, "0") : part)).join(":");
}

/** "5 minutes", "1 second", in the plural of the words around it. */
export function span(seconds) {
  const [unit, count] = seconds < 60 ? ["second", seconds] : ["minute", Math.round(seconds / 60)];
  return new Intl.NumberFormat(languageOf(locale), { style: "unit", unit, unitDisplay: "long" }).format(count);
}

const day = (ms) => new Intl.DateTimeFormat(locale, { dateStyle: "medium" }).format(ms);

// ------------------------------------------------------------------------------------------------------ whole screens

/** Shows one of loading, lobby, call, closing, problem. */
export function show(view) {
  if (root.dataset.view === view) return;
  root.dataset.view = view;
  const heading = { closing: "closing-title", problem: "problem-title" }[view];
  if (heading) $(heading).focus({ preventScroll: true });
}

/** The one status line, also for screen readers; `tone` is good, busy, bad or none. */
export function status(text, tone = "") {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("stage-status").textContent = text;
  root.dataset.tone = tone;
}

/** Says something once to screen readers that the eyes see elsewhere. */
export function announce(text) {
  $("announce").textContent = text;
}

const ICONS = {
  link_invalid: "link",
  link_expired: "clock",
  meeting_not_open: "clock",
  token_used: "link",
  bank_done: "check",
  session_ended: "check",
  unreachable: "cloud",
  replaced: "screens",
  bad_fingerprint: "lock",
};

/** A failure that takes the whole page: what happened, what to do, and the button that does it. */
export function problem(code, message, action) {
  const known = hasWords(`${code}_title`);
  $("problem-icon").setAttribute("href", `#i-${ICONS[code] ?? "alert"}`);
  $("problem-title").textContent = say(`${known ? code : "protocol"}_title`);
  $("problem-text").textContent = known ? say(`${code}_text`) : message;
  $("problem-action").hidden = !action;
  if (action) {
    $("problem-action").textContent = action.text;
    $("problem-action").onclick = action.run;
  }
  status($("problem-title").textContent, code === "bank_done" ? "" : "bad");
  show("problem");
}

// -------------------------------------------------------------------------------------------------------- lobby

/** Rows of a ledger: [label, value, kind?]; `kind` is strong or small. */
function ledger(list, rows) {
  list.replaceChildren(
    ...rows.map(([name, value, kind]) => {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      const detail = document.createElement("dd");
      term.textContent = name;
      detail.textContent = value;
      row.append(...(kind === "small" ? [detail] : [term, detail]));
      if (kind) row.className = kind;
      return row;
    }),
  );
}

function cardName({ brand = "card", last4 = "" }) {
  const known = { visa: "Visa", mastercard: "Mastercard", amex: "American Express", jcb: "JCB", diners: "Diners Club", discover: "Discover" };
  return `${known[brand] ?? brand} ···· ${last4}`;
}

function clientRows({ pricing, payment }) {
  const { currency } = pricing;
  const rows = [
    [say("per_minute"), money(pricing.unit_amount, currency)],
    pricing.free_seconds > 0 && [say("free_part"), say("minutes", { minutes: Math.round(pricing.free_seconds / 60) })],
    [say("longest"), say("minutes", { minutes: Math.round(pricing.limit_seconds / 60) })],
    [say("most"), money(pricing.amount_max ?? 0, currency), "strong"],
  ];
  if (payment?.status === "held" && payment.card) {
    rows.push([say("held_on", { card: cardName(payment.card) }), money(payment.amount_held, currency)]);
    if (payment.hold_until) rows.push(["", say("held_until", { date: day(payment.hold_until) }), "small"]);
  } else if (payment?.status === "awaiting_join") rows.push(["", say("hold_at_join"), "small"]);
  return rows;
}

function bookedRows({ pricing: { currency, fee, limit_seconds: limit } }) {
  return [
    [say("booked_paid"), money(fee, currency), "strong"],
    [say("longest"), say("minutes", { minutes: Math.round(limit / 60) })],
  ];
}

function expertRows({ pricing }) {
  const { currency, unit_amount: rate, commission_bps: bps = 0 } = pricing;
  return [
    [say("you_earn"), money(rate - Math.floor((rate * bps + 5000) / 10000), currency), "strong"],
    ["", say("after_commission", { rate: money(rate, currency), percent: percent(bps) }), "small"],
    pricing.free_seconds > 0 && [say("free_part"), say("minutes", { minutes: Math.round(pricing.free_seconds / 60) })],
    [say("longest"), say("minutes", { minutes: Math.round(pricing.limit_seconds / 60) })],
  ];
}

function freeRows({ pricing }) {
  return [
    ["", say("no_cost"), "small"],
    [say("longest"), say("minutes", { minutes: Math.round(pricing.limit_seconds / 60) })],
  ];
}

export const costs = ({ pricing }) => pricing.unit_amount > 0;
/** Paid before, with its booking. */
const booked = ({ pricing }) => pricing.fee > 0;

/** Price, consent text and the names, before anything costs. */
export function lobby(entry) {
  $("lobby-name").textContent = entry.peer?.name ?? "";
  $("terms").textContent = terms(entry);
  const own = entry.role === "client" ? clientRows : expertRows;
  const rowsOf = !costs(entry) ? freeRows : booked(entry) ? bookedRows : own;
  const rows = rowsOf(entry);
  ledger($("price"), rows.filter(Boolean));
  paymentNotice(entry);
  const [words, tone] = (entry.role === "client" && UNPAID[entry.payment?.status]) || ["status_lobby", ""];
  status(say(words), tone);
}

/** What is agreed to by starting, in the reader's language; its version goes with the consent. */
function terms(entry) {
  const { pricing, role } = entry;
  if (entry.terms?.text) return entry.terms.text;
  if (!costs(entry)) return [say("terms_nothing"), say("terms_always")].join(" ");
  if (booked(entry)) return [say("terms_booked"), say("terms_always")].join(" ");
  const values = {
    rate: money(pricing.unit_amount, pricing.currency),
    amount: money(pricing.amount_max ?? 0, pricing.currency),
    minutes: Math.round(pricing.free_seconds / 60),
  };
  const free = pricing.free_seconds > 0 ? say("terms_free_part", values) : "";
  return [say(role === "client" ? "terms_paid" : "terms_expert", values), free, say("terms_always")].filter(Boolean).join(" ");
}

/** What keeps the card from allowing to start, and how the status line says it. */
const UNPAID = { pending: ["pay_pending", "busy"], action_required: ["pay_action", "busy"], failed: ["pay_failed", "bad"] };
export const paid = ({ payment }) => !Object.hasOwn(UNPAID, payment?.status);

function paymentNotice(entry) {
  const { payment, pricing } = entry;
  $("payment").hidden = paid(entry);
  if (paid(entry)) return;
  if (entry.role === "expert") return expertPaymentNotice();
  const funds = payment.decline_code === "insufficient_funds";
  const [words] = UNPAID[payment.status];
  const here = entry.pay_url ? "_here" : "";
  const text = payment.status === "failed" ? (funds ? `pay_funds${here}` : `pay_failed${here}`) : words;
  $("payment").dataset.status = payment.status;
  if ($("payment-title").textContent !== say(words)) $("payment-title").textContent = say(words);
  $("payment-text").textContent = say(`${text}_text`, { amount: money(pricing.amount_max ?? 0, pricing.currency) });
  const way = { action_required: payment.action_url, failed: entry.pay_url }[payment.status];
  $("payment-action").hidden = !way;
  if (way && $("payment-action").href !== way) $("payment-action").href = way;
  $("payment-action").textContent = say(payment.status === "failed" ? "other_card" : "confirm_bank");
}

/** The expert learns only whether the money is there, and may wait inside. */
function expertPaymentNotice() {
  $("payment").dataset.status = "pending";
  $("payment-title").textContent = "";
  $("payment-text").textContent = say("pay_expert");
  $("payment-action").hidden = true;
}

/** The start button says the most that it can cost. */
export function startButton(entry, ready) {
  const most = entry.role === "client" && costs(entry) && !booked(entry) ? entry.pricing.amount_max : 0;
  $("join").textContent = most > 0 ? say("start_up_to", { amount: money(most, entry.pricing.currency) }) : say("start");
  $("join").disabled = !ready;
}

export function mediaNotice(errors) {
  const texts = errors.map((error) => {
    const key = error.code === "permission_denied" && errors.length === 1 ? `${error.code}_${error.device}` : error.code;
    return hasWords(key) ? say(key) : error.message;
  });
  $("media-notice").textContent = [...new Set(texts)].join(" ");
  $("media-notice").hidden = !errors.length;
}

export function deviceList(kind, devices, active) {
  const select = $(kind);
  select.replaceChildren(
    ...devices.map(({ deviceId, label: name }, at) => new Option(name || `${select.labels[0].textContent} ${at + 1}`, deviceId)),
  );
  select.closest("label").hidden = devices.length === 0;
  if (active) select.value = active;
}

/** The microphone's level, 0 to 1, as five bars. */
export function level(value) {
  [...$("level").children].forEach((bar, at) => bar.classList.toggle("on", value * 5 > at + 0.15));
}

// ---------------------------------------------------------------------------------------------------------- in call

export function controls({ audio, video }) {
  for (const [id, on] of [["mic", audio], ["camera", video]]) {
    $(id).setAttribute("aria-pressed", String(on));
    $(id).classList.toggle("off", !on);
    $(id).querySelector("use").setAttribute("href", `#i-${id}${on ? "" : "-off"}`);
    label($(id), say(`${id}_${on ? "on" : "off"}`));
  }
  $("tile").classList.toggle("no-video", !video);
  $("tile").classList.toggle("muted", !audio);
}

export function peerName(name) {
  $("peer-name").textContent = name;
  $("avatar").textContent = [...name.trim()][0]?.toUpperCase() ?? "?";
}

/** `text` stands in the place of the picture; with a picture it is empty. */
export function nobody(text, hasPicture) {
  $("stage").classList.toggle("no-picture", !hasPicture);
  $("nobody-text").textContent = text;
}

/** Whether the meter runs, in words; `stale`: the gateway cannot say at the moment. */
export function billing({ stale }) {
  $("money").classList.toggle("stale", stale);
  const text = say(stale ? "status_reconnecting" : `billing_${$("money").dataset.billing}`);
  if ($("billing").textContent !== text) $("billing").textContent = text;
}

export function meter({ elapsed, billing: kind, remaining, cost, earnings, currency }, role) {
  $("timer").textContent = clock(elapsed);
  $("money").dataset.billing = kind;
  billing({ stale: false });
  $("amount-label").textContent = say(role === "client" ? "cost" : "earnings");
  $("amount").textContent = money((role === "client" ? cost : earnings) ?? 0, currency);
  $("left").hidden = !(remaining <= 300);
  $("left").textContent = say("time_left", { time: clock(remaining) });
}

/** One's own bars, with the peer's beside its name; the bars of a peer that is fine would only take room. */
export function quality({ mine, peer }, name) {
  const own = say(`quality_${mine ?? "none"}`);
  const theirs = peer ? say(`quality_peer_${peer}`, { name }) : null;
  $("quality").dataset.quality = mine ?? "none";
  $("quality").dataset.peer = peer ?? "none";
  label($("quality"), theirs ? `${own}. ${theirs}` : own);
  $("peer-quality").textContent = ["poor", "lost"].includes(peer) ? theirs : "";
}

/** `sas`: {state, symbols}. The list is the accessible form, the chip the one at a glance. */
export function sas({ state, symbols }, name) {
  const chip = $("sas-chip");
  chip.dataset.state = state;
  $("sas-emoji").textContent = symbols.map(({ emoji }) => emoji).join(" ");
  const signs = symbols.map((symbol) => say(`sign_${symbol.name}`));
  $("sas").replaceChildren(...symbols.map(({ emoji }, at) => sign(emoji, signs[at])));
  $("sas").dataset.state = state;
  $("sas-text").textContent = say({ ready: "sas_ready", failed: "sas_failed" }[state] ?? "sas_wait", { name });
  const text = { ready: say("sas_label", { name, signs: signs.join(", ") }), failed: say("sas_failed") }[state];
  $("sas-label").textContent = text ?? say("sas_label_wait");
}

function sign(emoji, name) {
  const item = document.createElement("li");
  const picture = document.createElement("span");
  const word = document.createElement("b");
  picture.textContent = emoji;
  picture.setAttribute("aria-hidden", "true");
  word.textContent = name;
  item.append(picture, word);
  return item;
}

/** The card needs its holder in mid-call: words and, for a confirmation, the way to the bank. */
export function paymentBanner({ status, action_url: url }) {
  const key = { failed: "pay_failed", action_required: "pay_action" }[status];
  if (!key) {
    if ($("banner").dataset.reason === "payment") $("banner").hidden = true;
    return;
  }
  $("banner").dataset.reason = "payment";
  $("banner").hidden = false;
  $("warning").textContent = `${say(key)}. ${say(`${key}_text`)}`;
  $("banner-pay").hidden = !url;
  if (url) $("banner-pay").href = url;
}

/** What is held for the next call, in words; of the expert's side only that it is agreed. */
export function nextHold(payment, currency) {
  if (!payment?.card || payment.status !== "held") return say("continue_agreed_toast");
  return say("continue_held", { amount: money(payment.amount_held, currency), card: cardName(payment.card) });
}

/** A warning that stays until it is dismissed or replaced. */
export function warn({ remaining, reason }, entry) {
  const { currency, unit_amount: rate } = entry.pricing;
  const key = { limit_ending: "warn_limit", cap_ending: "warn_cap", free_ending: `warn_free_${entry.role}` }[reason];
  $("banner").dataset.reason = reason;
  $("banner-pay").hidden = true;
  $("banner").hidden = false;
  $("warning").textContent = say(key ?? "warn_limit", { time: span(remaining), rate: money(rate, currency) });
}

let toastTimer;
/** A short notice over the stage; gone after ten seconds. */
export function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 10_000);
}

export function errorText({ code, message }) {
  if (hasWords(`${code}_toast`)) return say(`${code}_toast`);
  return hasWords(code) ? say(code) : say("error_other", { message });
}

/** Opens or closes one of the panels that hang on a button. */
export function panel(id, button, open) {
  $(id).hidden = !open;
  $(button).setAttribute("aria-expanded", String(open));
  if (open) $(id).focus();
}

// ------------------------------------------------------------------------------------------------------------ the end

function endReason(reason, { role, peer }) {
  if (reason === `${role}_left`) return say("end_you_left");
  return say(hasWords(`end_${reason}`) ? `end_${reason}` : "end_ended", { name: peer?.name ?? "" });
}

/** The slip again, filled in. `summary` is null while the gateway still adds up. */
export function closing({ reason, summary }, entry) {
  const name = entry.peer?.name ?? "";
  $("closing-title").textContent = say("with_name", { name });
  $("rating-title").textContent = say("rate", { name });
  $("summary-note").textContent = summary ? endReason(reason, entry) : say("summing_up");
  $("summary").toggleAttribute("aria-busy", !summary);
  if (summary) figures(summary, entry);
  show("closing");
}

function figures(summary, entry) {
  const { currency } = summary;
  const client = entry.role === "client";
  const total = client ? summary.amount_total : summary.amount_expert ?? 0;
  const rows = [
    [say("duration"), clock(summary.duration_seconds)],
    summary.free_seconds > 0 && costs(entry) && [say("free_used"), clock(summary.free_seconds)],
    costs(entry) && [say("billable"), clock(summary.billable_seconds)],
    costs(entry) && [say("per_minute"), money(entry.pricing.unit_amount, entry.pricing.currency)],
    summary.amount_waived > 0 && [say("waived"), money(summary.amount_waived, currency)],
    !client && costs(entry) && [say("client_paid", { name: entry.peer?.name ?? "" }), money(summary.amount_total, currency)],
  ];
  ledger($("summary-rows"), rows.filter(Boolean));
  $("total-label").textContent = say(client ? "total" : "earned");
  $("summary-total").textContent = money(total, currency);
  $("receipt-link").hidden = !summary.receipt_url;
  $("receipt-link").textContent = say("receipt");
  if (summary.receipt_url) $("receipt-link").href = summary.receipt_url;
  const note = summary.amount_total === 0 ? say("nothing_charged") : summary.receipt_url ? "" : say("receipt_coming");
  $("summary-note").textContent = [$("summary-note").textContent, note].filter(Boolean).join(" ");
}

/** Five star buttons; `rate(n)` on a click. */
export function stars(rate) {
  const buttons = [1, 2, 3, 4, 5].map((n) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.testid = `rating-${n}`;
    button.innerHTML = '<svg aria-hidden="true"><use href="#i-star"/></svg>';
    label(button, say("stars", { n }));
    button.onclick = () => rate(n);
    return button;
  });
  $("stars").replaceChildren(...buttons);
}

export function rated(stars) {
  [...$("stars").children].forEach((button, at) => {
    button.classList.toggle("on", at < stars);
    button.setAttribute("aria-pressed", String(at + 1 === stars));
  });
}
