/** The call page: from a link's secret through lobby and call to the summary. Drawing is in view.js, the call in the SDK. */

import { Call, ParleyError } from "/sdk/parley.js";
import * as view from "/static/view.js";

const { $ } = view;

/** How often the lobby asks whether the card has been confirmed or changed. */
const PAYMENT_POLL_MS = 3000;
/** How often an unreachable gateway is asked again. */
const ENTER_AGAIN_MS = 3000;
/** After this many failed sockets the page says that the gateway is away; one drop is too ordinary to mention. */
const AWAY_AFTER = 2;
/** How long the summary asks for the receipt's link when the socket is gone. */
const RECEIPT_POLLS = 20;

let secret = location.hash.slice(1);
let call = null;
let stars = 0;
let asked = false;
/** How the call after this one stands, as we were last told. */
let nextCall = {};
let receiptPolls = 0;
let wakeLock = null;
/** Devices that are being opened now. */
let opening = Promise.resolve([]);
let meterStop = () => {};

const live = () => call && ["joining", "waiting", "connecting", "connected", "reconnecting"].includes(call.state);

// -------------------------------------------------------------------------------------------------------- entering

async function enter() {
  // The bank sends the client back here, in the tab that the lobby opened for it.
  if (!secret && new URLSearchParams(location.search).has("session")) return view.problem("bank_done");
  if (!secret) return view.problem("link_invalid");
  try {
    await open(await Call.enter(secret));
  } catch (error) {
    if (!(error instanceof ParleyError)) throw error;
    view.problem(error.code, error.message);
    if (!error.fatal) setTimeout(enter, ENTER_AGAIN_MS);
  }
}

/** Makes `next` the page's call, and shows where it stands. */
async function open(next) {
  call = window.parley = next;
  stars = 0;
  view.speak(call.entry.locale);
  view.peerName(call.peer.name);
  document.title = `${call.peer.name} · Parley`;
  wire(call);
  if (call.result) return ended();
  if (call.resumable) await comeBack();
  else await lobby();
}

/** A reload in mid-call goes straight back in, with what was on before. */
async function comeBack() {
  await openMedia(call.resumableMedia ?? { audio: true, video: false });
  await start();
}

async function lobby() {
  const { entry } = call;
  const video = entry.media === "video";
  $("lobby-eyebrow").textContent = view.say(video ? "video_call_with" : "voice_call_with");
  $("start-with").querySelector(`[value=${video ? "video" : "voice"}]`).checked = true;
  $("preview-dock").append($("dock"));
  view.lobby(entry);
  drawMedia();
  view.show("lobby");
  watchPayment();
  await openMedia({ audio: true, video });
}

async function openMedia(wanted) {
  const errors = await (opening = call.openMedia({ audio: true, video: wanted.video }));
  if (wanted.audio === false) await call.setMicrophone(false);
  showMediaErrors(errors);
  await listDevices();
  return errors;
}

function showMediaErrors(errors) {
  view.mediaNotice(errors);
  if (!errors.length) return;
  const retry = document.createElement("button");
  retry.type = "button";
  retry.className = "link";
  retry.textContent = view.say("retry");
  retry.onclick = () => openMedia({ video: wantsVideo() });
  $("media-notice").append(" ", retry);
}

const wantsVideo = () => $("start-with").querySelector("[value=video]").checked;
/** Somebody who can be neither heard nor seen should not start to pay. */
const canStart = () => (call.role === "expert" || view.paid(call.entry)) && call.localStream.getTracks().length > 0;

async function watchPayment() {
  while (call.state === "new" && !view.paid(call.entry)) {
    await new Promise((resolve) => setTimeout(resolve, PAYMENT_POLL_MS));
    if (call.state !== "new") return;
    await call.refresh().catch(() => null);
    if (call.result || call.state !== "new") return;
    view.lobby(call.entry);
    view.startButton(call.entry, canStart());
  }
}

async function start() {
  view.sas(call.sas, call.peer.name);
  view.quality({ mine: null, peer: null }, call.peer.name);
  view.meter({ elapsed: 0, billing: "waiting", remaining: Infinity, cost: 0, earnings: 0, currency: call.entry.pricing.currency }, call.role);
  $("money").classList.toggle("free-call", !view.costs(call.entry));
  $("stage").append($("tile"));
  $("stage").querySelector(".call-dock").prepend($("dock"));
  $("settings-panel").append($("devices"));
  view.show("call");
  $("hangup").focus({ preventScroll: true });
  stayAwake();
  await call.join({ consent: true });
}

// ------------------------------------------------------------------------------------------------ the call's events

function wire(target) {
  const on = (name, handle) => target.addEventListener(name, ({ detail }) => target === call && handle(detail));
  on("state", stateChanged);
  on("signaling", drawStatus);
  on("peer", peerChanged);
  on("media", drawMedia);
  on("devices", listDevices);
  on("meter", (detail) => view.meter(detail, call.role));
  on("quality", (detail) => view.quality(detail, call.peer.name));
  on("sas", (detail) => view.sas(detail, call.peer.name));
  on("warning", (detail) => view.warn(detail, call.entry));
  on("status", paymentInCall);
  on("pricing", madeFree);
  on("continue", continuing);
  on("replaced", replaced);
  on("error", failed);
  on("ended", ended);
}

function stateChanged({ state }) {
  drawStatus();
  drawPeer();
  if (state === "connected") playRemote();
}

const gatewayAway = () => !call.signaling.open && call.signaling.failures >= AWAY_AFTER;

function statusWords() {
  const { state, peer } = call;
  if (gatewayAway() && live()) return [state === "connected" ? "status_gateway_away_live" : "status_gateway_away", "bad"];
  if (state === "reconnecting" && peer.state === "left") return ["status_peer_left", "busy"];
  if (state === "reconnecting" && peer.state !== "connected" && peer.state !== "joined") return ["status_peer_reconnecting", "busy"];
  return [`status_${state}`, state === "connected" ? "good" : "busy"];
}

function drawStatus() {
  if (!live()) return;
  view.billing({ stale: gatewayAway() });
  const [key, tone] = statusWords();
  view.status(view.say(key, { name: call.peer.name }), tone);
}

function peerChanged({ replaced: moved }) {
  view.peerName(call.peer.name);
  drawStatus();
  drawPeer();
  if (moved) view.toast(view.say("peer_new", { name: call.peer.name }));
}

function drawPeer() {
  const { state, peer, remoteStream } = call;
  const picture = remoteStream?.getVideoTracks().some((track) => !track.muted && track.readyState === "live");
  const shown = Boolean(picture && peer.media?.video !== false);
  view.nobody(state === "connected" ? "" : $("stage-status").textContent, shown);
}

function drawMedia() {
  view.controls(call.media);
  view.startButton(call.entry, canStart());
  attach($("local-video"), call.localStream);
  attach($("remote-video"), call.remoteStream);
  drawPeer();
  listenToLevel();
}

/** A new incarnation brings a new stream; until its first picture the element keeps the old one's last. */
function attach(element, stream) {
  if (!stream || (element === $("remote-video") && !stream.getTracks().length)) return;
  if (element.srcObject !== stream) element.srcObject = stream;
  if (element === $("remote-video")) playRemote();
  else if (element.paused) element.play().catch(() => null);
}

function playRemote() {
  const element = $("remote-video");
  if (!element.srcObject) return;
  element.setSinkId?.(call.speaker ?? "").catch(() => null);
  // A reload has no click behind it, and some browsers hold the sound back then.
  element.play().then(
    () => ($("sound").hidden = true),
    (error) => {
      if (error.name === "NotAllowedError") $("sound").hidden = false;
    },
  );
}

function paymentInCall({ payment }) {
  if (payment && call.role === "client" && !call.result) view.paymentBanner(payment);
}

function madeFree() {
  $("money").classList.toggle("free-call", !view.costs(call.entry));
  if (!view.costs(call.entry)) view.toast(view.say("no_cost"));
}

function failed(error) {
  if (call.state !== "failed") return view.toast(view.errorText(error));
  leaveStage();
  view.problem(error.code, error.message, { text: view.say("reload"), run: () => location.reload() });
}

function replaced() {
  leaveStage();
  const run = async () => {
    try {
      await call.useHere();
      view.show("call");
      stayAwake();
    } catch (error) {
      view.problem(error.code ?? "protocol", error.message);
    }
  };
  view.problem("replaced", "", { text: view.say("use_here"), run });
}

// -------------------------------------------------------------------------------------------- going on, and the end

function continuing(told) {
  const { state } = told;
  const before = nextCall.payment?.status;
  nextCall = { ...nextCall, ...told };
  // `offered` is also the echo of our own wish, while the other side has not answered.
  if (state === "possible" || state === "peer_wants" || (state === "offered" && !asked)) offerContinue(state !== "possible");
  if (state === "peer_wants") view.toast(view.say("continue_peer", { name: call.peer.name }));
  if (state === "agreed") agreed(before);
  if (state === "failed") {
    asked = false;
    offerContinue();
    view.toast(view.say(`continue_failed_${call.role}`));
  }
}

/** While the call still runs, the client is shown what is held for the next one beside what is held for this one. */
function agreed(before) {
  if (call.result) return void goOn().catch(failed);
  $("continue").disabled = true;
  $("continue").textContent = view.say("continue_agreed");
  const { payment } = nextCall;
  if (payment?.status === before) return;
  if (payment?.action_url) view.paymentBanner(payment);
  view.toast(view.nextHold(payment, call.entry.pricing.currency));
}

function offerContinue(openBanner = true) {
  const button = $("continue");
  const { currency } = call.entry.pricing;
  const amount = nextCall.amount_max ?? 0;
  button.textContent = amount > 0 ? view.say("continue_up_to", { amount: view.money(amount, currency) }) : view.say("continue");
  button.hidden = button.disabled = false;
  (call.result ? $("closing-continue") : $("banner-actions")).append(button);
  if (!call.result && openBanner) $("banner").hidden = false;
}

function askToContinue() {
  try {
    call.continue();
    asked = true;
    $("continue").disabled = true;
    $("continue").textContent = view.say("continue_wait", { name: call.peer.name });
  } catch (error) {
    view.toast(view.errorText(error));
  }
}

/** Both want to go on: into the next session on this same page, with the devices as they were. */
async function goOn() {
  const before = call;
  const next = await before.next();
  const { url } = before.successor;
  if (url) history.replaceState(null, "", new URL(url, location.href).hash);
  secret = location.hash.slice(1);
  asked = false;
  nextCall = {};
  before.close();
  $("continue").hidden = true;
  call = window.parley = next;
  view.peerName(call.peer.name);
  wire(call);
  if (call.result) return ended();
  await openMedia(before.lastMedia);
  await start();
}

function ended() {
  leaveStage();
  view.closing(call.result, call.entry);
  view.status(view.say("status_ended"));
  const { summary } = call.result;
  $("rating").hidden = !call.signaling.open;
  if (!$("stars").children.length) view.stars(rate);
  if (call.successor) return void goOn().catch(failed);
  if (summary?.continue && $("continue").hidden) offerContinue();
  else $("closing-continue").append($("continue"));
  if (!summary?.receipt_url) waitForReceipt(call);
}

/** Figures and the receipt's link come over the socket; if that is gone, the link's own entry has them. */
async function waitForReceipt(target) {
  if (receiptPolls > 0) return;
  for (receiptPolls = RECEIPT_POLLS; receiptPolls > 0; receiptPolls -= 1) {
    await new Promise((resolve) => setTimeout(resolve, ENTER_AGAIN_MS));
    if (target !== call || call.result.summary?.receipt_url) break;
    if (!call.signaling.open) await call.refresh().catch(() => null);
  }
  receiptPolls = 0;
}

function leaveStage() {
  $("banner").hidden = $("toast").hidden = true;
  view.panel("sas-panel", "sas-chip", false);
  view.panel("settings-panel", "settings", false);
  meterStop();
  wakeLock?.release().catch(() => null);
  wakeLock = null;
  $("remote-video").srcObject = null;
}

function rate(chosen) {
  stars = chosen;
  view.rated(stars);
  $("comment-row").hidden = false;
  $("comment").placeholder = view.say("comment");
  sendRating();
}

function sendRating() {
  let text = "rated";
  try {
    call.rate(stars, { comment: $("comment").value.trim() || undefined });
  } catch {
    text = "rating_lost";
  }
  $("rating-state").textContent = view.say(text);
}

// ---------------------------------------------------------------------------------------------- devices and controls

async function listDevices() {
  const devices = await call.devices();
  for (const [kind, list] of Object.entries(devices)) view.deviceList(kind, list, call.activeDevice(kind));
}

/** Runs a device action; what goes wrong is said in the lobby's notice or over the stage. */
async function attempt(action) {
  try {
    await action();
    view.mediaNotice([]);
    await listDevices();
  } catch (error) {
    if (call.state === "new") showMediaErrors([error]);
    else view.toast(view.errorText(error));
  }
}

async function toggleCamera(on) {
  $("camera").disabled = true;
  await opening; // or a camera that is still being opened would come on after it was declined
  await attempt(() => call.setCamera(on));
  $("camera").disabled = false;
  if (call.state !== "new") return;
  $("start-with").querySelector(`[value=${call.media.video ? "video" : "voice"}]`).checked = true;
  $("camera").focus();
}

/** Draws the microphone's level while the lobby is open. */
function listenToLevel() {
  meterStop();
  const track = call.localStream.getAudioTracks()[0];
  if (call.state !== "new" || !track || !("AudioContext" in window)) return;
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 512 });
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
    // Speech lies between about -50 and -10 dB.
    view.level(power > 0 ? Math.min(1, Math.max(0, (20 * Math.log10(power) + 50) / 40)) : 0);
  }, 80);
  const wake = () => context.resume();
  addEventListener("pointerdown", wake, { once: true });
  meterStop = () => {
    clearInterval(timer);
    removeEventListener("pointerdown", wake);
    context.close().catch(() => null);
    meterStop = () => {};
  };
}

/** The screen stays on during the call, where the browser can. */
async function stayAwake() {
  wakeLock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
}

function togglePanel(id, button) {
  const open = $(id).hidden;
  for (const [other, opener] of [["sas-panel", "sas-chip"], ["settings-panel", "settings"]])
    view.panel(other, opener, other === id && open);
}

$("lobby-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (canStart() && call.state === "new") start();
});
$("start-with").addEventListener("change", () => toggleCamera(wantsVideo()));
$("mic").addEventListener("click", () => attempt(() => call.setMicrophone(!call.media.audio)));
$("camera").addEventListener("click", () => toggleCamera(!call.media.video));
$("hangup").addEventListener("click", () => call.leave());
$("continue").addEventListener("click", askToContinue);
$("sound").addEventListener("click", playRemote);
$("banner-close").addEventListener("click", () => ($("banner").hidden = true));
$("settings").addEventListener("click", () => togglePanel("settings-panel", "settings"));
$("sas-chip").addEventListener("click", () => togglePanel("sas-panel", "sas-chip"));
$("rating").addEventListener("submit", (event) => {
  event.preventDefault();
  if (stars) sendRating();
});
for (const kind of ["audioinput", "videoinput", "audiooutput"])
  $(kind).addEventListener("change", ({ target }) => attempt(() => call.switchDevice(kind, target.value)));

addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return;
  for (const [id, button] of [["sas-panel", "sas-chip"], ["settings-panel", "settings"]]) {
    if ($(id).hidden) continue;
    view.panel(id, button, false);
    $(button).focus();
  }
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && live() && !wakeLock) stayAwake();
});
// Back, close and reload ask first while the call is live; whoever goes all the same may come back by the link.
addEventListener("beforeunload", (event) => {
  if (live()) event.preventDefault();
});
addEventListener("hashchange", () => {
  if (location.hash.slice(1) !== secret) location.reload();
});

view.speak(navigator.language);
view.status(view.say("status_loading"), "busy");
enter();
