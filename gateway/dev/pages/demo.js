// The demo page: sends the order, then shows what the server's stream tells of the session.

const $ = (selector) => document.querySelector(selector);
const form = $("#order");
let stream = null;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const money = (amount, currency) =>
  new Intl.NumberFormat(undefined, { style: "currency", currency, currencyDisplay: "code" }).format(amount / 100);

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function wish() {
  const fields = new FormData(form);
  return {
    unit_amount: Math.round(Number(fields.get("rate")) * 100),
    currency: fields.get("currency"),
    free_minutes: Number(fields.get("free_minutes")),
    max_minutes: Number(fields.get("max_minutes")),
    media: fields.get("media"),
    card: fields.get("card"),
  };
}

function explain() {
  const { unit_amount, currency, free_minutes, max_minutes } = wish();
  if (!form.checkValidity()) return;
  const held = Math.max(0, max_minutes - free_minutes) * unit_amount;
  // Stripe's smallest charge, with the gateway's margin for other currencies than its own; below it a bill is waived.
  const smallest = currency === "usd" ? 50 : 80;
  const seconds = Math.ceil((smallest * 60) / unit_amount);
  $("#sum").textContent = held === 0
    ? "All of it is free: no card is held."
    : `Holds ${money(held, currency)} on the card. Talk ${seconds} paid seconds or more: a bill under ${money(smallest, currency)} is waived.`;
}

async function start(event) {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  $("#fault").hidden = true;
  try {
    const answer = await fetch("/demo/sessions", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wish()),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail || body.title || body.error?.message || `Refused (${answer.status})`);
    history.replaceState(null, "", `?session=${body.id}`);
    follow(body.id);
    showLinks(body.links);
    $("#links").scrollIntoView({ block: "nearest", behavior: "smooth" });
  } catch (fault) {
    $("#fault").textContent = fault.message;
    $("#fault").hidden = false;
  } finally {
    button.disabled = false;
  }
}

function follow(session) {
  stream?.close();
  for (const panel of ["payments", "mail", "events"]) shown.delete(panel);
  stream = new EventSource(`/demo/stream?session=${encodeURIComponent(session)}`);
  stream.addEventListener("state", (message) => show(JSON.parse(message.data)));
}

function show(state) {
  showLinks(state.links);
  showStatus(state.session);
  put("payments", payments(state));
  put("mail", mails(state.mails));
  addEvents(state.events);
}

const shown = new Map();

// Untouched while nothing changed, so that a selection or a focus stays where it is.
function put(panel, content) {
  const html = content.map((part) => part.outerHTML).join("");
  if (shown.get(panel) === html) return;
  shown.set(panel, html);
  $(`#${panel} .content`).replaceChildren(...content);
}

function showLinks(links) {
  if ($("#links").dataset.client === links.client) return;
  $("#links").dataset.client = links.client;
  $("#links-hint").textContent = "Open the client here and the expert in a second window or another browser. Allow camera and microphone.";
  $("#links").replaceChildren(...["client", "expert"].map((role) => make("a", {
    className: `door ${role}`, href: links[role], target: "_blank", rel: "noopener", "data-testid": `demo-${role}-link`,
  }, make("strong", {}, `Join as the ${role}`), make("small", {}, role === "client" ? "pays by the second" : "earns by the second"))));
}

const WORDS = {
  created: "Waiting for both to join", ringing: "Ringing", ready: "Card held, waiting for both", live: "Live: the meter runs",
  interrupted: "Interrupted: nothing is billed", ended: "Ended, the bill is being closed", finalized: "Finished",
};

function showStatus(session) {
  if (!session) return;
  const why = session.end_reason ? ` (${session.end_reason.replaceAll("_", " ")})` : "";
  $("#status").textContent = (WORDS[session.status] ?? session.status) + why;
  $("#status").dataset.status = session.status;
  $("#status").hidden = false;
}

function payments({ session, stripe }) {
  if (!session) return [make("p", { className: "empty" }, "The gateway does not answer just now.")];
  const payment = session.payment ?? {};
  const currency = session.currency ?? payment.currency ?? "usd";
  return [figures(session, payment, currency), shares(session, currency), movements(stripe)].filter(Boolean);
}

function figures(session, payment, currency) {
  const card = payment.card ? `${payment.card.brand} ···· ${payment.card.last4}` : null;
  const rows = [
    ["Status", make("span", { className: "tag", "data-status": payment.status ?? "none" }, (payment.status ?? "none").replaceAll("_", " "))],
    payment.decline_code ? ["Declined", payment.decline_code.replaceAll("_", " ")] : null,
    payment.pay_url ? ["The client", make("a", { href: payment.pay_url, target: "_blank", rel: "noopener", "data-testid": "demo-pay-link" }, "opens the pay page")] : null,
    payment.amount_held ? ["Held", money(payment.amount_held, currency)] : null,
    card ? ["Card", make("span", { className: "card" }, card)] : null,
    session.billable_seconds !== undefined && session.billable_seconds !== null ? ["Billable", `${session.billable_seconds} s`] : null,
    session.amount_waived ? ["Waived", money(session.amount_waived, currency)] : null,
    session.amount_total !== undefined && session.amount_total !== null
      ? ["Total", make("strong", { className: "total" }, money(session.amount_total, currency))] : null,
  ].filter(Boolean);
  return make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function shares(session, currency) {
  if (!session.amount_total) return null;
  const parts = ["expert", "platform", "ambassador"].map((who) => [who, session[`amount_${who}`] ?? 0]);
  return make("div", { className: "shares" }, ...parts.map(([who, amount]) => make("div", { className: who },
    make("span", {}, who), make("b", {}, money(amount, currency)),
    make("progress", { max: session.amount_total, value: amount, "aria-label": `${who}'s share` }))));
}

function movements(stripe) {
  if (!stripe) return null;
  const lines = [
    ...stripe.payment_intents.map((intent) => [intent.id, `intent ${intent.status.replaceAll("_", " ")}`, intent.amount_received || intent.amount, intent.currency]),
    ...stripe.transfers.map((transfer) => [transfer.id, `transfer to ${transfer.destination}`, transfer.amount - (transfer.amount_reversed ?? 0), transfer.currency]),
    ...stripe.refunds.map((refund) => [refund.id, `refund ${refund.status}`, refund.amount, refund.currency]),
  ];
  if (lines.length === 0) return null;
  return make("div", { className: "movements" }, make("h3", {}, "At Stripe (sandbox)"), make("ul", {}, ...lines.map(([id, what, amount, currency]) =>
    make("li", {}, make("span", {}, what), make("b", {}, money(amount, currency)), make("code", {}, id)))));
}

function mails(list) {
  if (!list?.length) return [make("p", { className: "empty" }, "Receipts come after the call.")];
  return [make("ul", { className: "letters" }, ...list.map((mail) => make("li", {},
    make("a", { href: mail.url, target: "_blank", rel: "noopener" }, make("span", { className: "who" }, `to the ${mail.role}`),
      make("time", {}, clock(mail.received_ms)), make("span", { className: "subject" }, mail.subject)))))];
}

// Only what is new is added, the newest on top: an event that somebody has unfolded stays unfolded.
function addEvents(list) {
  const content = $("#events .content");
  if (list.length === 0 || !shown.has("events")) {
    content.replaceChildren(make("p", { className: "empty" }, "Waiting for the first event."));
    shown.set("events", 0);
  }
  const fresh = list.slice(shown.get("events"));
  if (fresh.length === 0) return;
  if (!content.querySelector("ol")) content.replaceChildren(make("ol", { reversed: true }));
  content.querySelector("ol").prepend(...fresh.map(line).reverse());
  shown.set("events", list.length);
}

function line(event) {
  return make("li", { "data-type": event.type, "data-sequence": event.sequence },
    make("details", {},
      make("summary", {}, make("span", { className: "sequence" }, String(event.sequence)), make("b", {}, event.type),
        make("time", {}, clock(event.created))),
      make("pre", {}, JSON.stringify(event.data, null, 2))));
}

form.addEventListener("submit", start);
form.addEventListener("input", explain);
explain();
const session = new URLSearchParams(location.search).get("session");
if (session) follow(session);
