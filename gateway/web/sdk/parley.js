/**
 * Parley's browser SDK: one sealed, metered call between two people. No dependency, no user interface.
 *
 *   const call = await Call.enter(secret);               // price and terms are in call.entry
 *   await call.openMedia({ audio: true, video: true });  // preview: call.localStream
 *   call.addEventListener("meter", ({ detail }) => …);
 *   await call.join({ consent: true });
 *
 * From top to bottom: errors, time, keys that survive a reload, the socket, verification (SAS), one peer connection
 * (`Link`), local devices (`Media`), what the statistics say (`Gauge`), and `Call`, which ties them together.
 * Types and the list of events: parley.d.ts. Protocol: docs/protocol.md.
 */

export const SDK = "parley-js/1";

// ---------------------------------------------------------------------------------------------------------- errors

/** Every code that the SDK itself raises, in plain words. The gateway's own codes bring their words along. */
const WORDS = {
  action_required: "The bank wants to confirm this payment first.",
  audio_blocked: "The browser holds the sound back until the page is clicked.",
  bad_fingerprint: "The call's encryption keys do not agree. It was refused, because somebody may be in between.",
  camera_in_use: "The camera is being used by another program.",
  camera_lost: "The camera was unplugged or taken away.",
  hello_timeout: "The gateway heard nothing from this page in time.",
  insecure_context: "Calls need a page served over HTTPS.",
  link_expired: "This link has expired.",
  link_invalid: "This link is not valid.",
  microphone_in_use: "The microphone is being used by another program.",
  microphone_lost: "The microphone was unplugged or taken away.",
  no_camera: "No camera was found.",
  no_microphone: "No microphone was found.",
  not_connected: "There is no connection to the gateway at the moment.",
  permission_denied: "The browser was not allowed to use the camera or the microphone.",
  protocol: "The gateway and this page did not understand each other.",
  replaced: "The call was opened in another window or on another device.",
  sas_failed: "The call could not be verified: somebody may be in between.",
  session_ended: "This session has ended.",
  token_invalid: "This page may not enter the session any more.",
  token_used: "This link was used already.",
  unreachable: "The gateway cannot be reached.",
  unsupported_browser: "This browser cannot make calls.",
};

/** The one error of this SDK. `code` is stable, `fatal` says that the call cannot go on, `message` is for people. */
export class ParleyError extends Error {
  constructor(code, { message, fatal = false, cause } = {}) {
    super(message || WORDS[code] || code, { cause });
    this.name = "ParleyError";
    this.code = code;
    this.fatal = fatal;
  }
}

// ------------------------------------------------------------------------------------------------------------ time

const WORKER_CLOCK = `const timers = new Map();
onmessage = ({ data: [id, ms] }) => {
  if (ms === null) { clearTimeout(timers.get(id)); timers.delete(id); return; }
  timers.set(id, setTimeout(() => { timers.delete(id); postMessage(id); }, ms));
};
postMessage(0);`;

/**
 * Timers in a worker: browsers slow a background tab's own timers down to one a minute, which would be too late for a
 * stalled call. Where no worker may start (a policy without `worker-src blob:`), the page's timers serve.
 */
class Clock {
  #jobs = new Map();
  #last = 0;
  #worker = null;
  #ready = false;

  constructor() {
    try {
      const url = URL.createObjectURL(new Blob([WORKER_CLOCK], { type: "text/javascript" }));
      this.#worker = new Worker(url);
      this.#worker.onmessage = ({ data: id }) => (id === 0 ? (this.#ready = true) : this.#fire(id));
      this.#worker.onerror = (event) => event.preventDefault();
    } catch {
      this.#worker = null;
    }
  }

  /** Runs `job` once after `ms` milliseconds; returns what `cancel` takes. */
  after(ms, job) {
    const id = ++this.#last;
    this.#jobs.set(id, { job, timer: this.#ready ? null : setTimeout(() => this.#fire(id), ms) });
    if (this.#ready) this.#worker.postMessage([id, ms]);
    return id;
  }

  cancel(id) {
    const entry = this.#jobs.get(id);
    if (!entry) return;
    this.#jobs.delete(id);
    if (entry.timer === null) this.#worker.postMessage([id, null]);
    else clearTimeout(entry.timer);
  }

  stop() {
    for (const id of [...this.#jobs.keys()]) this.cancel(id);
    this.#worker?.terminate();
    this.#worker = null;
    this.#ready = false;
  }

  #fire(id) {
    const entry = this.#jobs.get(id);
    this.#jobs.delete(id);
    entry?.job();
  }
}

// ------------------------------------------------------------------------------------------------- bytes and hashes

const utf8 = (text) => new TextEncoder().encode(text);
const b64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const unb64url = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
const hex = (bytes) => [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const same = (left, right) => left.length === right.length && left.every((byte, at) => byte === right[at]);

function joined(...parts) {
  const out = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) (out.set(part, at), (at += part.length));
  return out;
}

const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

// ------------------------------------------------------------------------------------- what survives a page's reload

const database = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open("parley", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("keys");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

async function stored(mode, work) {
  const db = await database();
  try {
    return await new Promise((resolve, reject) => {
      const request = work(db.transaction("keys", mode).objectStore("keys"));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } finally {
    db.close();
  }
}

/**
 * This page's right to come back: the rotating resume secret with its nonce (this tab's session storage), and the key
 * that has to sign the nonce. The key is not extractable, so that a stolen secret alone opens nothing.
 */
class Seat {
  #name;
  #pair = null;

  constructor(session, role) {
    this.#name = `parley:${session}:${role}`;
  }

  read() {
    try {
      return JSON.parse(sessionStorage.getItem(this.#name)) ?? {};
    } catch {
      return {};
    }
  }

  write(change) {
    try {
      sessionStorage.setItem(this.#name, JSON.stringify({ ...this.read(), ...change }));
    } catch {
      // Storage may be forbidden: then a reload enters by the link again.
    }
  }

  async open() {
    this.#pair = await stored("readonly", (keys) => keys.get(this.#name)).catch(() => null);
    if (!this.#pair) await this.renew();
  }

  async renew() {
    this.#pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]);
    this.write({ resume: null, nonce: null });
    await stored("readwrite", (keys) => keys.put(this.#pair, this.#name)).catch(() => null);
  }

  async jwk() {
    const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", this.#pair.publicKey);
    return { kty, crv, x, y };
  }

  async proof(nonce) {
    return b64url(await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, this.#pair.privateKey, utf8(nonce)));
  }

  async forget() {
    try {
      sessionStorage.removeItem(this.#name);
    } catch {
      // As above.
    }
    await stored("readwrite", (keys) => keys.delete(this.#name)).catch(() => null);
  }
}

// ------------------------------------------------------------------------------------------------------- the socket

/** Waiting times before the next attempt; the first is at once, because most drops are a network change. */
const RECONNECT_MS = [0, 300, 1200, 2700, 4800, 7000];
/** A welcome later than this is taken for a dead path; shorter would give up on slow phones, longer wastes the grace. */
const WELCOME_MS = 8000;
/** How long a pong may take before a second socket is opened beside the first. */
const PONG_MS = 5000;

/** One WebSocket from its hello to its close. Calls `heard(message)` and, once, `closed(code)`. */
class Wire {
  welcomed = false;

  constructor(url, hello, { heard, closed }) {
    this.heard = heard;
    this.closed = closed;
    this.socket = new WebSocket(url, "parley.v1");
    const message = hello();
    this.socket.onopen = () => message.then((ready) => this.send(ready), () => this.drop(1006));
    this.socket.onmessage = ({ data }) => this.#receive(data);
    this.socket.onclose = ({ code }) => this.drop(code);
  }

  send(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  /** Ends the wire and reports `code`, as if the network had closed it. */
  drop(code) {
    const { closed } = this;
    this.discard();
    closed?.(code);
  }

  /** Ends the wire without a report. */
  discard() {
    this.heard = this.closed = null;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    if (this.socket.readyState <= WebSocket.OPEN) this.socket.close(1000);
  }

  #receive(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (message?.type) this.heard?.(message);
  }
}

/**
 * Keeps one welcomed socket alive: reconnects with growing delays, and opens a second one beside a doubtful first
 * (make before break). What a close code means is the owner's to say: `closing(code)` returns "retry" or "stop".
 */
class Signaling {
  #clock;
  #live = null;
  #trial = null;
  #attempt = 0;
  #timers = {};
  #stopped = false;

  constructor({ clock, url, hello, heard, up, down, alive, closing }) {
    this.#clock = clock;
    Object.assign(this, { url, hello, heard, up, down, alive, closing });
  }

  get open() {
    return this.#live !== null;
  }

  /** Failed attempts since the last welcome. */
  get failures() {
    return this.#attempt;
  }

  send(message) {
    return this.#live?.send(message) ?? false;
  }

  /** Opens a socket unless one is on its way; the old one, if any, serves until the new one is welcomed. */
  connect() {
    if (this.#stopped || this.#trial) return;
    this.#cancel("retry");
    const wire = new Wire(this.url(), () => this.hello(), {
      heard: (message) => this.#heard(wire, message),
      closed: (code) => this.#closed(wire, code),
    });
    this.#trial = wire;
    this.#set("welcome", WELCOME_MS, () => wire.drop(1006));
  }

  stop() {
    this.#stopped = true;
    for (const name of Object.keys(this.#timers)) this.#cancel(name);
    this.#trial?.discard();
    this.#live?.discard();
    this.#live = this.#trial = null;
  }

  /** For tests: the live socket dies as if the network had cut it. */
  cut() {
    this.#live?.drop(1006);
  }

  #heard(wire, message) {
    if (message.type === "pong") return this.#answered();
    if (message.type === "welcome" && wire === this.#trial) this.#promote(wire, message);
    this.heard(message);
  }

  #answered() {
    this.#cancel("pong");
    this.alive();
  }

  #promote(wire, welcome) {
    this.#cancel("welcome");
    this.#live?.discard();
    this.#live = wire;
    this.#trial = null;
    this.#attempt = 0;
    this.#cancel("pong");
    this.#keepAlive((welcome.ping || 20) * 1000);
    this.up();
  }

  #keepAlive(every) {
    this.#set("ping", every, () => {
      this.probe();
      this.#keepAlive(every);
    });
  }

  /** Asks for a sign of life; without one a second socket is opened. */
  probe() {
    if (this.#timers.pong === undefined && this.send({ type: "ping", t: Math.round(performance.now()) }))
      this.#set("pong", PONG_MS, () => this.connect());
  }

  #closed(wire, code) {
    const wasLive = wire === this.#live;
    if (wasLive) this.#live = null;
    else this.#trial = null;
    if (!wasLive) this.#cancel("welcome");
    // Our own second socket makes the gateway call the first one replaced; its outcome decides.
    if (this.#stopped || (wasLive && this.#trial)) return;
    if (wasLive) this.down(code);
    const verdict = this.closing(code);
    if (verdict === "stop") return;
    if (this.#live) this.probe();
    else this.#retry(verdict);
  }

  #retry(atLeast) {
    const step = RECONNECT_MS[Math.min(this.#attempt, RECONNECT_MS.length - 1)];
    // Jitter, so that a gateway that restarts is not met by all its callers in the same instant.
    const wait = Math.max(step * (0.75 + Math.random() / 2), Number(atLeast) || 0);
    this.#attempt += 1;
    this.#set("retry", wait, () => this.connect());
  }

  #set(name, ms, job) {
    this.#cancel(name);
    this.#timers[name] = this.#clock.after(ms, () => {
      delete this.#timers[name];
      job();
    });
  }

  #cancel(name) {
    if (this.#timers[name] === undefined) return;
    this.#clock.cancel(this.#timers[name]);
    delete this.#timers[name];
  }
}

// ----------------------------------------------------------------------------------------------- verification (SAS)

/** 32 symbols that also a phone line tells apart; four of them carry 20 bits, and commit-reveal allows one guess. */
export const SAS_SYMBOLS = [
  ["🐭", "mouse"], ["🐮", "cow"], ["🐱", "cat"], ["🐵", "monkey"], ["☀️", "sun"], ["☁️", "cloud"],
  ["☂️", "umbrella"], ["☃️", "snowman"], ["☄️", "comet"], ["⚡", "lightning"], ["❄️", "snowflake"], ["☕", "coffee"],
  ["☎️", "telephone"], ["✈️", "airplane"], ["✉️", "envelope"], ["✂️", "scissors"], ["✏️", "pencil"], ["⚓", "anchor"],
  ["⚔️", "swords"], ["⚖️", "scales"], ["⚗️", "flask"], ["⚙️", "gear"], ["⚛️", "atom"], ["☘️", "shamrock"],
  ["♟️", "pawn"], ["❤️", "heart"], ["♠️", "spade"], ["♦️", "diamond"], ["⚒️", "hammers"], ["✌️", "victory"],
  ["☯️", "yin yang"], ["⚜️", "lily"],
].map(([emoji, name]) => ({ emoji, name }));

const FINGERPRINT = /^a=fingerprint:sha-256 ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})$/i;

/**
 * The one certificate fingerprint of a description, as 64 lower-case hex digits.
 * Browsers differ in which of several lines they obey, so a description is refused unless all lines agree.
 */
export function fingerprintOf(sdp) {
  // A lone CR or another control character could be a line end for one parser and not for the next.
  if (/\r(?!\n)|[\0\v\f\u0085\u2028\u2029]/.test(sdp)) throw new ParleyError("bad_fingerprint", { fatal: true });
  const lines = sdp.split(/\r?\n/).filter((line) => /^\s*a\s*=\s*fingerprint/i.test(line));
  const values = lines.map((line) => FINGERPRINT.exec(line)?.[1].replaceAll(":", "").toLowerCase());
  if (!values.length || values.some((value) => !value || value !== values[0]))
    throw new ParleyError("bad_fingerprint", { fatal: true });
  return values[0];
}

/** A commit is repeated until it is answered, since the peer may connect later than we do. */
const COMMIT_AGAIN_MS = 2000;
const NONCE_BYTES = 32;

/**
 * Short authentication string by commit and reveal. The client commits to its nonce, the expert answers with his, the
 * client reveals: nobody in between can choose a nonce after seeing the other, so one guess in 2^20 is all there is.
 * Both certificates in use, both nonces, the roles' order and the session are hashed. A value on the wire is
 * the incarnation (2 × u16, client's first) and 32 bytes, so that a value of an older incarnation counts for nothing.
 */
export class Sas {
  #stamp;
  #commit = null;
  #mine = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  #theirs = null;
  #prints = null;
  #early = [];
  #done = false;

  constructor({ session, role, generation, clock, send, ready, failed }) {
    const counts = role === "client" ? [generation.mine, generation.peer] : [generation.peer, generation.mine];
    this.#stamp = Uint8Array.from(counts.flatMap((count) => [(count >> 8) & 255, count & 255]));
    Object.assign(this, { session, role, clock, send, ready, failed });
  }

  /** Both fingerprints (hex) are known and the connection is up. */
  async start(local, remote) {
    if (this.#prints) return;
    const [client, expert] = this.role === "client" ? [local, remote] : [remote, local];
    this.#prints = utf8(`${client} ${expert}`);
    if (this.role === "client") await this.#propose();
    for (const message of this.#early.splice(0)) await this.receive(message);
  }

  async receive({ step, value }) {
    if (!this.#prints) return void this.#early.push({ step, value });
    const bytes = this.#open(value);
    if (!bytes || this.#done) return;
    if (step === "commit" && this.role === "expert") this.#committed(bytes);
    else if (step === "nonce" && this.role === "client") await this.#answered(bytes);
    else if (step === "reveal" && this.role === "expert") await this.#revealed(bytes);
  }

  /** The socket came back: what is still unanswered goes out again, unchanged. */
  repeat() {
    if (this.role === "client" && this.#theirs) this.#say("reveal", this.#mine);
    else if (this.role === "client" && this.#commit) this.#say("commit", this.#commit);
  }

  stop() {
    this.#done = true;
  }

  async #propose() {
    this.#commit = await this.#commitment(this.#mine);
    const again = () => {
      if (this.#done || this.#theirs) return;
      this.#say("commit", this.#commit);
      this.clock.after(COMMIT_AGAIN_MS, again);
    };
    again();
  }

  #committed(commit) {
    if (this.#commit && !same(this.#commit, commit)) return this.#fail();
    this.#commit = commit;
    this.#say("nonce", this.#mine);
  }

  async #answered(nonce) {
    if (this.#theirs && !same(this.#theirs, nonce)) return this.#fail();
    const first = !this.#theirs;
    this.#theirs = nonce;
    this.#say("reveal", this.#mine);
    if (first) await this.#show(this.#mine, nonce);
  }

  async #revealed(nonce) {
    if (!this.#commit || !same(this.#commit, await this.#commitment(nonce))) return this.#fail();
    this.#done = true;
    await this.#show(nonce, this.#mine);
  }

  #commitment(nonce) {
    return sha256(joined(utf8(`parley sas commit v1\0${this.session}\0client\0`), this.#stamp, this.#prints, nonce));
  }

  async #show(clientNonce, expertNonce) {
    const label = utf8(`parley sas v1\0${this.session}\0client expert\0`);
    const digest = await sha256(joined(label, this.#stamp, this.#prints, clientNonce, expertNonce));
    const number = (digest[0] << 16) | (digest[1] << 8) | digest[2];
    this.ready([19, 14, 9, 4].map((low) => SAS_SYMBOLS[(number >> low) & 31]));
  }

  #fail() {
    this.#done = true;
    this.failed(new ParleyError("sas_failed"));
  }

  #say(step, bytes) {
    this.send({ type: "sas", step, value: b64url(joined(this.#stamp, bytes)) });
  }

  #open(value) {
    try {
      const bytes = unb64url(value);
      const fits = bytes.length === 4 + NONCE_BYTES && same(bytes.slice(0, 4), this.#stamp);
      return fits ? bytes.slice(4) : null;
    } catch {
      return null;
    }
  }
}

// -------------------------------------------------------------------------------------------- one peer connection

/** An answer sent so shortly before its socket died may be lost; an older one has arrived, or ICE would have failed. */
const ANSWER_LOST_MS = 5000;

/**
 * One incarnation: an RTCPeerConnection, its negotiation and its verification. A page reload on either side ends it,
 * since that is a new DTLS identity (6-media, SDP and generations). Work on the connection runs in one queue, so that a
 * description is never applied in the middle of another.
 */
class Link extends EventTarget {
  remote = new MediaStream();
  connectedAt = null;
  startedAt = null;
  #queue = Promise.resolve();
  #wanted = false;
  #print = null;
  #inFlight = null;
  #offers = 0;
  #here = false;
  #closed = false;

  constructor({ generation, polite, offerer, iceServers, send, sas }) {
    super();
    Object.assign(this, { generation, polite, offerer, send, sas });
    this.pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.pc.onnegotiationneeded = () => {
      this.#wanted = true;
      this.negotiate();
    };
    this.pc.ontrack = ({ track }) => this.#addRemote(track);
    this.pc.onconnectionstatechange = () => this.#stateChanged();
  }

  /** Adds what is sent at the start; without a microphone the offer still asks for the peer's sound. */
  start(stream, tracks) {
    for (const track of tracks) this.pc.addTrack(track, stream);
    if (!tracks.some((track) => track.kind === "audio")) this.pc.addTransceiver("audio", { direction: "recvonly" });
  }

  /** The peer is in the room (`peer {state: joined}`), so descriptions reach somebody. */
  set peerHere(here) {
    this.#here = here;
    if (here) this.negotiate();
  }

  fits({ mine, peer }) {
    return this.generation.mine === mine && this.generation.peer === peer;
  }

  /** The gateway counts our leg's credentials; the next description has to carry its number. */
  follow({ transport }) {
    if (transport > this.generation.transport) this.generation = { ...this.generation, transport };
  }

  negotiate() {
    return this.#run(async () => {
      const mayOffer = this.#here && (this.offerer || this.pc.remoteDescription);
      if (!mayOffer || !this.#wanted || this.pc.signalingState !== "stable") return;
      await this.#offer();
    });
  }

  /** New ICE credentials for our leg; DTLS and its keys stay as they are. */
  restart() {
    return this.#run(async () => {
      if (!this.pc.remoteDescription && !this.offerer) return;
      this.pc.restartIce();
      await this.#offer();
    });
  }

  receive({ sdp, kind, generation, number = null }) {
    return this.#run(async () => {
      if (!generation || !this.fits(generation)) return;
      this.#pin(fingerprintOf(sdp));
      this.follow(generation);
      if (kind === "answer") await this.#answered(sdp, number);
      else if (kind === "offer") await this.#offered(sdp, number);
    });
  }

  /** After a new socket: the description of which the gateway may know nothing goes out again. */
  repeat() {
    const last = this.#inFlight;
    if (last && (last.type === "offer" || performance.now() - last.at < ANSWER_LOST_MS)) this.#describe(last, last.number);
    this.sas.repeat();
  }

  async setTrack(kind, track, stream) {
    const transceiver = this.pc.getTransceivers().find(({ receiver }) => receiver.track.kind === kind);
    if (!transceiver) return void (track && this.pc.addTrack(track, stream));
    await transceiver.sender.replaceTrack(track);
    if (track) transceiver.sender.setStreams?.(stream);
    transceiver.direction = track ? "sendrecv" : "recvonly";
  }

  close() {
    this.#closed = true;
    this.sas.stop();
    this.pc.onnegotiationneeded = this.pc.ontrack = this.pc.onconnectionstatechange = null;
    this.pc.close();
  }

  async #offer() {
    await this.pc.setLocalDescription();
    this.#wanted = false;
    this.startedAt ??= performance.now();
    this.#offers += 1;
    this.#describe(this.pc.localDescription, this.#offers);
  }

  /** An answer to an offer that we have replaced since says nothing about the present one. */
  async #answered(sdp, number) {
    if (this.pc.signalingState !== "have-local-offer" || (number !== null && number !== this.#offers)) return;
    await this.pc.setRemoteDescription({ type: "answer", sdp });
    this.#inFlight = null;
  }

  async #offered(sdp, number) {
    // Perfect negotiation: on glare the impolite side's offer stands, and the polite side rolls back its own.
    if (this.pc.signalingState !== "stable" && !this.polite) return;
    await this.pc.setRemoteDescription({ type: "offer", sdp });
    // What the offer did not settle makes the browser ask again, once the answer is in place.
    this.#wanted = false;
    await this.pc.setLocalDescription();
    this.startedAt ??= performance.now();
    this.#describe(this.pc.localDescription, number);
  }

  #describe({ type, sdp }, number) {
    this.send({ type: "description", sdp, kind: type, generation: this.generation, number });
    this.#inFlight = { type, sdp, number, at: performance.now() };
  }

  #pin(print) {
    if (this.#print !== null && this.#print !== print) throw new ParleyError("bad_fingerprint", { fatal: true });
    this.#print = print;
  }

  #addRemote(track) {
    this.remote.addTrack(track);
    const tell = () => this.dispatchEvent(new Event("track"));
    track.onmute = track.onunmute = tell;
    tell();
  }

  #stateChanged() {
    const state = this.pc.connectionState;
    if (state === "connected" && this.connectedAt === null) {
      this.connectedAt = performance.now();
      this.#verify().catch((error) => this.#fail(error));
    }
    this.dispatchEvent(new Event("state"));
  }

  /** What DTLS really uses on the far side has to be what the description promised. */
  async #verify() {
    const local = fingerprintOf(this.pc.localDescription.sdp);
    const transport = this.pc.getTransceivers().find(({ sender }) => sender.transport)?.sender.transport;
    const [certificate] = transport?.getRemoteCertificates?.() ?? [];
    const remote = certificate ? hex(await sha256(certificate)) : this.#print;
    if (remote !== this.#print) throw new ParleyError("bad_fingerprint", { fatal: true });
    if (!this.#closed) await this.sas.start(local, remote);
  }

  #run(work) {
    this.#queue = this.#queue.then(() => (this.#closed ? undefined : work())).catch((error) => this.#fail(error));
    return this.#queue;
  }

  #fail(cause) {
    if (this.#closed) return;
    const error = cause instanceof ParleyError ? cause : new ParleyError("protocol", { cause });
    this.dispatchEvent(new CustomEvent("error", { detail: error }));
  }
}

// ---------------------------------------------------------------------------------------------------- local devices

/** Two cores cannot encode and decode 720p in software beside a page; 540p then looks better than a stuttering 720p. */
const VIDEO =
  (navigator.hardwareConcurrency || 4) > 2
    ? { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } }
    : { width: { ideal: 960 }, height: { ideal: 540 }, frameRate: { ideal: 24 } };
const AUDIO = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

function deviceError(cause, kind) {
  const camera = kind === "video";
  const code =
    {
      NotAllowedError: "permission_denied",
      SecurityError: "permission_denied",
      NotReadableError: camera ? "camera_in_use" : "microphone_in_use",
      AbortError: camera ? "camera_in_use" : "microphone_in_use",
    }[cause.name] ?? (camera ? "no_camera" : "no_microphone");
  const error = new ParleyError(code, { cause });
  error.device = camera ? "camera" : "microphone";
  return error;
}

/** The microphone and camera of this page; `lost(kind)` when a device goes away by itself. */
class Media {
  stream = new MediaStream();
  chosen = { audioinput: null, videoinput: null };

  constructor(lost) {
    this.lost = lost;
  }

  track(kind) {
    return this.stream.getTracks().find((track) => track.kind === kind) ?? null;
  }

  /** Opens what is asked for and missing; returns a list of ParleyErrors, empty if all is well. */
  async open({ audio, video }) {
    const kinds = [audio && !this.track("audio") && "audio", video && !this.track("video") && "video"].filter(Boolean);
    if (!kinds.length) return [];
    try {
      await this.#open(kinds);
      return [];
    } catch (cause) {
      if (kinds.length === 1) return [deviceError(cause, kinds[0])];
    }
    // One of the two is at fault: ask singly, so that a missing camera leaves the voice.
    const results = [];
    for (const kind of kinds) results.push(...(await this.open({ [kind]: true })));
    return results;
  }

  async switch(device, deviceId) {
    this.chosen[device] = deviceId;
    const kind = device === "audioinput" ? "audio" : "video";
    const old = this.track(kind);
    if (!old) return null;
    // Phones open one camera at a time, so the old one goes first; a microphone change must not cut the voice.
    if (kind === "video") this.close(kind);
    await this.#open([kind], old.enabled).catch((cause) => {
      throw deviceError(cause, kind);
    });
    if (kind === "audio") this.#remove(old);
    return this.track(kind);
  }

  close(kind) {
    const track = this.track(kind);
    if (track) this.#remove(track);
  }

  stop() {
    for (const track of this.stream.getTracks()) this.#remove(track);
  }

  #remove(track) {
    track.onended = null;
    track.stop();
    this.stream.removeTrack(track);
  }

  async #open(kinds, enabled = true) {
    const wanted = (kind, device, base) =>
      kinds.includes(kind) && { ...base, ...(this.chosen[device] && { deviceId: { exact: this.chosen[device] } }) };
    const constraints = { audio: wanted("audio", "audioinput", AUDIO), video: wanted("video", "videoinput", VIDEO) };
    const opened = await navigator.mediaDevices.getUserMedia(constraints);
    for (const track of opened.getTracks()) this.#adopt(track, enabled);
  }

  #adopt(track, enabled) {
    track.enabled = enabled;
    track.onended = () => {
      this.#remove(track);
      this.lost(track.kind);
    };
    // The newest track stands first, so that `track(kind)` finds it while a switch is under way.
    const others = this.stream.getTracks();
    for (const other of others) this.stream.removeTrack(other);
    for (const next of [track, ...others]) this.stream.addTrack(next);
  }
}

// ---------------------------------------------------------------------------------------- what the statistics say

/** Loss ratio and round trip up to which a call counts as excellent and as good; beyond, it is poor. */
const EXCELLENT = { loss: 0.01, rtt: 0.2 };
const GOOD = { loss: 0.05, rtt: 0.45 };

/** Reads getStats of one connection: what arrived, and how well. */
class Gauge {
  #reported = null;

  /** Sums over all streams since the connection began (seconds, bytes, packets). */
  async read(pc) {
    const sums = { received: 0, lost: 0, bytes_in: 0, bytes_out: 0, jitter: 0, rtt: 0, frames: 0, freezes: 0 };
    for (const row of (await pc.getStats()).values()) Gauge.#add(sums, row);
    return sums;
  }

  /** The sums as flat numbers for `stats`, with the loss ratio since the last report. */
  report(sums) {
    const since = this.#reported ?? { received: 0, lost: 0 };
    this.#reported = sums;
    const lost = Math.max(0, sums.lost - since.lost);
    const sent = sums.received - since.received + lost;
    return { ...sums, loss: sent > 0 ? lost / sent : 0 };
  }

  static quality({ loss, rtt }) {
    if (loss <= EXCELLENT.loss && rtt <= EXCELLENT.rtt) return "excellent";
    return loss <= GOOD.loss && rtt <= GOOD.rtt ? "good" : "poor";
  }

  static #add(sums, row) {
    if (row.type === "inbound-rtp") {
      sums.received += row.packetsReceived ?? 0;
      sums.lost += row.packetsLost ?? 0;
      sums.bytes_in += row.bytesReceived ?? 0;
      sums.jitter = Math.max(sums.jitter, row.jitter ?? 0);
      sums.frames += row.framesDecoded ?? 0;
      sums.freezes += row.freezeCount ?? 0;
    } else if (row.type === "outbound-rtp") sums.bytes_out += row.bytesSent ?? 0;
    else if (row.type === "remote-inbound-rtp") sums.rtt = Math.max(sums.rtt, row.roundTripTime ?? 0);
    else if (row.type === "candidate-pair" && row.nominated) sums.rtt = Math.max(sums.rtt, row.currentRoundTripTime ?? 0);
  }
}

// ---------------------------------------------------------------------------------------------------------- the call

const WATCH_MS = 500;
const STATS_MS = 5000;
/** Without packets for so long, a second socket is opened; shorter than this would answer to ordinary jitter. */
const STALL_MS = 1000;
/** ICE restarts of one stall: the first after 1.5 s, the next after 1.5, 3 and then every 6 s. */
const RESTARTS_MS = [1500, 1500, 3000, 6000];
/** A page whose own network seems well leaves the first restart to the other for so long; both at once would collide. */
const PATIENCE_MS = { impolite: 1000, polite: 2000 };
/** A connection that does not come up in this time gets new credentials. */
const CONNECT_MS = 6000;
/** After `leave` the gateway's own summary is waited for so long, then the last figures are shown instead. */
const LEAVE_MS = 4000;
/** After 4005 (rate limited) the next attempt waits at least so long. */
const RATE_LIMITED_MS = 5000;

/**
 * So many packets between two looks make a flow; fewer may be a muted peer's stray ones, whose end means nothing. The
 * better of the last two counts: a flow that is cut soon after a look shows few in the next.
 */
const FLOW = 5;

/** A summary without figures says only that the gateway still adds up. */
const final = (summary) => (Number.isInteger(summary?.billable_seconds) ? summary : null);

const ABSENT = new Set(["absent", "reconnecting", "left"]);
const supported = () =>
  typeof RTCPeerConnection === "function" && typeof WebSocket === "function" && typeof indexedDB === "object";

/** One person's side of one session. See parley.d.ts for events and fields. */
export class Call extends EventTarget {
  state = "new";
  peer = { state: "absent", name: "", media: null };
  meter = null;
  quality = null;
  peerQuality = null;
  sas = { state: "none", symbols: [] };
  result = null;
  error = null;
  welcome = null;
  payment;
  #secret;
  #gateway;
  #clock = new Clock();
  #seat;
  #media = new Media((kind) => this.#deviceLost(kind));
  #signaling = null;
  #link = null;
  #gauge = null;
  #consent = null;
  #resumeRefused = false;
  #stall = null;
  #arrival = { count: 0, at: 0, lately: 0, before: 0 };
  #statsAt = 0;
  #seen = null;
  #told = null;
  #leaving = false;
  #successor = null;
  #listeners = new AbortController();
  #fatal = null;
  #lastMedia = { audio: true, video: false };
  #handlers = {
    welcome: (message) => this.#welcomed(message),
    peer: (message) => this.#peerMessage(message),
    description: (message) => this.#described(message),
    sas: (message) => this.#sasMessage(message),
    restart: (message) => this.#restartOrdered(message),
    meter: (message) => this.#metered(message),
    warning: (message) => this.#warned(message),
    quality: (message) => this.#qualityTold(message),
    status: (message) => this.#statusChanged(message),
    continue: (message) => this.#continued(message),
    ended: (message) => this.#ended(message),
    error: (message) => this.#refused(message),
  };

  /**
   * Exchanges a link's secret for what the page needs to know before it joins (price, terms, payment).
   * Raises ParleyError `link_invalid`, `link_expired`, `session_ended`, `unreachable`, `unsupported_browser`,
   * `insecure_context`.
   */
  static async enter(secret, { gateway = location.origin } = {}) {
    if (!isSecureContext) throw new ParleyError("insecure_context", { fatal: true });
    if (!supported()) throw new ParleyError("unsupported_browser", { fatal: true });
    const call = new Call(secret, gateway, await Call.#exchange(secret, gateway));
    // Made now, so that the click on join has nothing left to wait for; the first connection of a page starts slowly.
    new RTCPeerConnection().close();
    await call.#seat.open();
    if (call.#spent) throw new ParleyError("token_used", { fatal: true });
    return call;
  }

  static async #exchange(secret, gateway) {
    let response;
    try {
      response = await fetch(new URL("/v1/enter", gateway), {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ secret }),
        cache: "no-store",
      });
    } catch (cause) {
      throw new ParleyError("unreachable", { cause });
    }
    const body = await response.json().catch(() => ({}));
    if (response.ok) return body;
    if (response.status >= 500 || response.status === 429) throw new ParleyError("unreachable", { message: body.detail });
    throw new ParleyError(body.code || "link_invalid", { fatal: true });
  }

  constructor(secret, gateway, entry) {
    super();
    this.#secret = secret;
    this.#gateway = gateway;
    this.#take(entry);
    this.#seat = new Seat(entry.session, entry.role);
    if (entry.end) this.#finish(entry.end);
  }

  /** The current RTCPeerConnection, or null before the first one. */
  get peerConnection() {
    return this.#link?.pc ?? null;
  }

  get session() {
    return this.entry.session;
  }

  get role() {
    return this.entry.role;
  }

  get localStream() {
    return this.#media.stream;
  }

  get remoteStream() {
    return this.#link?.remote ?? null;
  }

  /** What is sent now: a muted microphone and a camera that is off are false. */
  get media() {
    return { audio: this.#media.track("audio")?.enabled ?? false, video: this.#media.track("video") !== null };
  }

  /** True if this tab was in the call before (a reload): join again without asking. */
  get resumable() {
    return Boolean(this.#seat.read().joined) && !this.entry.end;
  }

  /** What was on before the reload: `{audio, video}` or null. */
  get resumableMedia() {
    return this.#seat.read().media ?? null;
  }

  /** Whether the socket to the gateway is up, and how many attempts have failed since it was. */
  get signaling() {
    return { open: this.#signaling?.open ?? false, failures: this.#signaling?.failures ?? 0 };
  }

  /** What was on when the call ended or moved elsewhere: `{audio, video}`. */
  get lastMedia() {
    return this.#lastMedia;
  }

  /** Asks the gateway again for price, payment and a fresh token; an end that was missed is made up for. */
  async refresh() {
    this.#take(await Call.#exchange(this.#secret, this.#gateway));
    if (this.entry.end) this.#finish(this.entry.end);
    return this.entry;
  }

  /**
   * Opens microphone and camera for the preview. Returns the ParleyErrors of what could not be opened (`device`
   * says which); a missing camera leaves the microphone.
   */
  async openMedia({ audio = true, video = true } = {}) {
    const errors = await this.#media.open({ audio, video });
    this.#mediaChanged();
    return errors;
  }

  /** The devices by kind; labels are empty until permission was given. */
  async devices() {
    const all = await navigator.mediaDevices.enumerateDevices();
    const of = (kind) => all.filter((device) => device.kind === kind && device.deviceId !== "");
    return { audioinput: of("audioinput"), videoinput: of("videoinput"), audiooutput: of("audiooutput") };
  }

  /** The device in use, by kind. */
  activeDevice(kind) {
    if (kind === "audiooutput") return this.speaker ?? "default";
    const track = this.#media.track(kind === "audioinput" ? "audio" : "video");
    return track?.getSettings().deviceId ?? this.#media.chosen[kind];
  }

  async switchDevice(kind, deviceId) {
    if (kind === "audiooutput") {
      this.#media.chosen.audiooutput = deviceId;
      return void this.#emit("devices");
    }
    const track = await this.#media.switch(kind, deviceId);
    if (track) await this.#link?.setTrack(track.kind, track, this.localStream);
    this.#mediaChanged();
  }

  /** The speaker chosen with `switchDevice("audiooutput", …)`, for `setSinkId` of the page's elements. */
  get speaker() {
    return this.#media.chosen.audiooutput ?? null;
  }

  /** A muted microphone keeps its track and sends silence, so unmuting is instant. */
  async setMicrophone(on) {
    if (on && !this.#media.track("audio")) await this.#openOne("audio");
    const track = this.#media.track("audio");
    if (track) track.enabled = on;
    this.#mediaChanged();
  }

  /** Voice to video and back: the camera is opened or let go (its light goes out), and the call renegotiated. */
  async setCamera(on) {
    if (on === this.media.video) return;
    if (on) await this.#openOne("video");
    else this.#media.close("video");
    await this.#link?.setTrack("video", this.#media.track("video"), this.localStream);
    this.#mediaChanged();
  }

  /** Enters the room. `consent: true` records that price and terms were shown and accepted. */
  async join({ consent = false } = {}) {
    if (this.#signaling) return;
    const { terms, pricing, locale } = this.entry;
    this.#consent = consent
      ? { text_version: terms?.version ?? "1", locale: locale ?? "en", amount_max: pricing?.amount_max ?? 0 }
      : null;
    this.#seat.write({ joined: true, media: this.media });
    this.#setState("joining");
    this.#listen();
    this.#signaling = this.#signal();
    this.#signaling.connect();
  }

  /** Hangs up for this side; the gateway's summary follows in `ended`. */
  leave() {
    if (this.result) return;
    this.#leaving = true;
    this.#signaling?.send({ type: "leave" });
    this.#hangUp();
    this.#clock.after(LEAVE_MS, () => this.#finish({ reason: `${this.role}_left`, summary: null }));
  }

  /** Rates the other side, 1 to 5; may be sent again to change it. */
  rate(stars, { comment, parameters } = {}) {
    const message = { type: "rate", stars, ...(comment && { comment }), ...(parameters && { parameters }) };
    if (!this.#signaling?.send(message)) throw new ParleyError("not_connected");
  }

  /** Says that this side wants to go on in a new session on the same terms. */
  continue() {
    if (!this.#signaling?.send({ type: "continue" })) throw new ParleyError("not_connected");
  }

  /** Where both go on, once agreed: `{session, url?, token?}`; null before. */
  get successor() {
    return this.#successor;
  }

  /** The call in which both agreed to go on; it is joined as any other. */
  async next() {
    const { url, session, token } = this.#successor;
    const secret = url ? new URL(url, this.#gateway).hash.slice(1) : "";
    if (secret) return Call.enter(secret, { gateway: this.#gateway });
    const call = new Call(null, this.#gateway, { ...this.entry, session, token, end: null });
    await call.#seat.open();
    if (call.#spent) throw new ParleyError("token_used", { fatal: true });
    return call;
  }

  /** After `replaced`: takes the call back to this page. */
  async useHere() {
    await this.refresh();
    await this.#seat.renew();
    await this.openMedia({ audio: true, video: this.#lastMedia.video });
    await this.setMicrophone(this.#lastMedia.audio);
    this.#seat.write({ joined: true, media: this.media });
    this.error = null;
    this.#resumeRefused = false;
    this.#setState("joining");
    this.#signaling = this.#signal();
    this.#signaling.connect();
  }

  /** For tests: "socket-drop" (cut by the network), "socket-doubt" (a second socket beside the first), "ice-restart". */
  simulate(what) {
    if (what === "socket-drop") this.#signaling?.cut();
    else if (what === "socket-doubt") this.#signaling?.connect();
    else if (what === "ice-restart") this.#link?.restart();
    else throw new ParleyError("protocol", { message: `nothing to simulate: ${what}` });
  }

  /** Lets go of devices, sockets and timers without hanging up. */
  close() {
    this.#hangUp();
    this.#signaling?.stop();
    if (this.result) this.#seat.forget();
    this.#listeners.abort();
    this.#clock.stop();
  }

  // ------------------------------------------------------------------------------------------------ socket and hello

  #signal() {
    return new Signaling({
      clock: this.#clock,
      url: () => this.entry.signal,
      hello: () => this.#hello(),
      heard: (message) => this.#heard(message),
      up: () => this.#emit("signaling", this.signaling),
      down: () => this.#emit("signaling", this.signaling),
      alive: () => this.#pathStands(),
      closing: (code) => this.#closing(code),
    });
  }

  async #hello() {
    const { resume, nonce } = this.#seat.read();
    const hello = {
      type: "hello",
      sdk: SDK,
      capabilities: ["sas", "restart", "continue"],
      media: this.media,
      generation: this.#link?.generation ?? null,
      consent: this.#consent,
    };
    if (resume && !this.#resumeRefused) return { ...hello, resume, proof: await this.#seat.proof(nonce), key: null };
    return { ...hello, token: this.entry.token, proof: null, key: await this.#seat.jwk() };
  }

  /** What a close code means: "retry", a number of ms to wait at least, or "stop". */
  #closing(code) {
    this.#emit("signaling", this.signaling);
    if (this.result && code === 4003) return "stop";
    if (code === 4002) return this.#replaced();
    if (code === 4003) return this.#over();
    if (code === 4001) return this.#unauthorized();
    if (code === 4000) return this.#fail(this.#fatal ?? new ParleyError("protocol", { fatal: true }));
    if (this.result && this.signaling.failures > 3) return "stop";
    return code === 4005 ? RATE_LIMITED_MS : "retry";
  }

  #replaced() {
    this.#seat.write({ joined: false });
    this.#signaling.stop();
    this.#hangUp();
    this.error = new ParleyError("replaced");
    this.#setState("replaced");
    this.#emit("replaced");
    return "stop";
  }

  /** A join token that served already, and no page here that could come back. */
  get #spent() {
    return !this.entry.token && !this.entry.end && !this.#seat.read().resume;
  }

  /** The resume secret was refused (or the token is too old): the link itself still opens the room, once. */
  #unauthorized() {
    const error = this.#fatal ?? new ParleyError("token_invalid", { fatal: true });
    if (this.#resumeRefused || this.result) return this.result ? "stop" : this.#fail(error);
    this.#resumeRefused = true;
    this.#reenter(error);
    return "stop";
  }

  async #reenter(error) {
    try {
      await this.refresh();
      await this.#seat.renew();
    } catch (cause) {
      if (!cause.fatal) return void this.#clock.after(RECONNECT_MS[3], () => this.#reenter(error));
      return void this.#fail(cause);
    }
    if (this.#spent) return void this.#fail(new ParleyError("token_used", { fatal: true }));
    if (!this.result) this.#signaling.connect();
  }

  /** The gateway closed because the session is over, and its `ended` may have been lost. */
  #over() {
    const unknown = () => this.result ?? this.#finish({ reason: "ended", summary: null });
    this.refresh().then(unknown, unknown);
    return "stop";
  }

  #heard(message) {
    // A type this version does not know is of a newer protocol, and may be passed over.
    if (Object.hasOwn(this.#handlers, message.type)) this.#handlers[message.type](message);
  }

  // --------------------------------------------------------------------- messages of the gateway, by their type

  #welcomed(message) {
    const first = this.welcome === null;
    this.welcome = message;
    this.#resumeRefused = false;
    this.#seat.write({ resume: message.resume, nonce: message.nonce });
    this.#repriced(message.pricing);
    if (this.#leaving) return void this.#signaling.send({ type: "leave" });
    if (this.result) return;
    this.#incarnation(message);
    this.#link.repeat();
    this.#peerIs(message.peer);
    if (first) this.#watch();
    this.#settle();
  }

  #peerMessage(message) {
    if (this.result || this.#leaving) return;
    if (message.generation) this.#incarnation({ ...this.welcome, generation: message.generation });
    this.#peerIs(message);
  }

  #described(message) {
    this.#link?.receive(message);
  }

  #sasMessage(message) {
    this.#link?.sas.receive(message);
  }

  #restartOrdered({ generation }) {
    if (!this.#link?.fits(generation)) return;
    this.#link.follow(generation);
    this.#link.restart();
  }

  #metered(message) {
    this.meter = message;
    this.#emit("meter", message);
  }

  #warned(message) {
    this.#emit("warning", message);
  }

  #statusChanged(message) {
    if (message.payment) this.payment = { ...this.payment, ...message.payment };
    this.#repriced(message.pricing);
    this.#emit("status", message);
  }

  /** Another price than the one that was agreed to: none, for it only ever falls away as a whole. */
  #repriced(pricing) {
    if (!pricing || !this.entry || pricing.unit_amount === this.entry.pricing?.unit_amount) return;
    this.entry = { ...this.entry, pricing };
    this.#emit("pricing", pricing);
  }

  #continued(message) {
    if (message.state === "agreed") this.#successor = message;
    this.#emit("continue", message);
  }

  #ended(message) {
    this.#finish(message);
  }

  #refused({ code, message, fatal }) {
    if (code === "session_ended") return void this.#over();
    const error = new ParleyError(code, { message, fatal });
    if (fatal) this.#fatal = error;
    else if (code !== "stale") this.#emit("error", error);
  }

  // -------------------------------------------------------------------------------------- incarnations and the peer

  #incarnation({ generation, polite, offerer, ice_servers: iceServers }) {
    if (this.#link?.fits(generation)) return void this.#link.follow(generation);
    this.#link?.close();
    this.#setSas("none");
    const link = new Link({
      generation,
      polite,
      offerer,
      iceServers: iceServers ?? [],
      send: (message) => this.#signaling.send(message),
      sas: this.#newSas(generation),
    });
    this.#adopt(link);
  }

  #newSas(generation) {
    return new Sas({
      session: this.session,
      role: this.role,
      generation,
      clock: this.#clock,
      send: (message) => this.#signaling.send(message),
      ready: (symbols) => this.#setSas("ready", symbols),
      failed: (error) => this.#sasFailed(error),
    });
  }

  #adopt(link) {
    this.#link = link;
    this.#gauge = new Gauge();
    this.#arrival = { count: 0, at: performance.now(), lately: 0, before: 0 };
    link.addEventListener("track", () => this.#emit("media"));
    link.addEventListener("state", () => this.#linkState(link));
    link.addEventListener("error", ({ detail }) => this.#linkFailed(detail));
    link.start(this.localStream, this.localStream.getTracks());
    this.#emit("media");
  }

  #peerIs({ state, name, media, replaced }) {
    this.peer = { state: state ?? this.peer.state, name: name ?? (this.peer.name || this.entry.peer?.name), media: media ?? this.peer.media };
    if (this.#link) this.#link.peerHere = !["absent", "left"].includes(this.peer.state);
    this.#emit("peer", { ...this.peer, replaced: Boolean(replaced) });
    this.#settle();
  }

  #linkState(link) {
    if (link !== this.#link) return;
    const state = link.pc.connectionState;
    if (state === "connected") {
      this.#arrival.at = performance.now();
      this.#recovered();
      if (this.sas.state === "none") this.#setSas("verifying");
    }
    this.#settle();
  }

  #linkFailed(error) {
    this.error = error;
    if (error.fatal) this.#fail(error);
    else this.#emit("error", error);
  }

  #sasFailed(error) {
    this.#setSas("failed");
    this.#emit("error", error);
  }

  #setSas(state, symbols = []) {
    this.sas = { state, symbols };
    this.#emit("sas", this.sas);
  }

  /** Derives the one state that a page shows from link, peer and stall. */
  #settle() {
    if (this.result || !this.welcome || this.state === "replaced" || this.state === "failed") return;
    const up = this.#link?.pc.connectionState === "connected";
    const silent = performance.now() - this.#arrival.at >= STALL_MS;
    if (this.#stall || (up && silent && ABSENT.has(this.peer.state))) return this.#setState("reconnecting");
    if (up) return this.#setState("connected");
    const was = this.#link?.connectedAt !== null || this.state === "reconnecting";
    if (ABSENT.has(this.peer.state)) return this.#setState(was ? "reconnecting" : "waiting");
    return this.#setState(was ? "reconnecting" : "connecting");
  }

  #setState(state) {
    const before = this.state;
    if (before === state) return;
    this.state = state;
    this.#emit("state", { state, before });
    if (state === "connected") this.#emit(before === "reconnecting" ? "reconnected" : "connected");
    if (state === "reconnecting") this.#emit("reconnecting");
  }

  // --------------------------------------------------------------------------------------------------- watch and stall

  #watch() {
    this.#clock.after(WATCH_MS, async () => {
      if (this.result || this.state === "failed") return;
      await this.#look().catch(() => null);
      this.#watch();
    });
  }

  async #look() {
    const link = this.#link;
    if (!link || this.state === "replaced") return;
    // Chromium keeps the certificates of the first report, so one before DTLS is done would hide the peer's for good.
    const reading = link.connectedAt === null ? null : await this.#gauge.read(link.pc);
    if (link !== this.#link) return;
    const now = performance.now();
    if (reading) this.#count(reading, now);
    this.#judge(link, now);
    this.#settle();
    if (reading && now - this.#statsAt >= STATS_MS) this.#report(reading, now);
  }

  #count({ received }, now) {
    const packets = received - this.#arrival.count;
    if (packets === 0) return;
    this.#arrival = { count: received, at: now, lately: packets, before: this.#arrival.lately };
    this.#recovered();
  }

  #judge(link, now) {
    if (link.startedAt === null || ABSENT.has(this.peer.state)) return;
    const broken = ["disconnected", "failed"].includes(link.pc.connectionState);
    const begun = link.connectedAt === null;
    // Silence of a peer who sends nothing is no stall while ICE, which hears the gateway's answers, is content.
    if (!begun && !broken && !this.#peerSends()) return;
    const quiet = now - Math.max(this.#arrival.at, begun ? link.startedAt : 0);
    if (quiet >= (begun && !broken ? CONNECT_MS : STALL_MS)) this.#stalled(now, quiet);
  }

  #peerSends() {
    const { media } = this.peer;
    const { lately, before } = this.#arrival;
    return Math.max(lately, before) >= FLOW && Boolean(media?.audio || media?.video);
  }

  #stalled(now, quiet) {
    if (!this.#stall) {
      this.#stall = { restarts: 0, next: now - quiet + RESTARTS_MS[0], patient: false };
      this.#signaling.probe();
      this.#signaling.connect();
      this.#showQuality();
      this.#settle();
    }
    if (now < this.#stall.next || !this.#signaling.open) return;
    this.#stall.restarts += 1;
    this.#stall.next = now + RESTARTS_MS[Math.min(this.#stall.restarts, RESTARTS_MS.length - 1)];
    this.#link.restart();
  }

  /** The old socket still answers in a stall: it is rather the peer's network that changed, and the peer restarts.
   *  Only the first restart waits for that; a pong that comes later says nothing new. */
  #pathStands() {
    if (!this.#stall || this.#stall.restarts > 0 || this.#stall.patient) return;
    this.#stall.patient = true;
    this.#stall.next += this.#link?.polite ? PATIENCE_MS.polite : PATIENCE_MS.impolite;
  }

  #recovered() {
    if (!this.#stall) return;
    this.#stall = null;
    this.#showQuality();
    this.#settle();
  }

  #report(reading, now) {
    this.#statsAt = now;
    const numbers = this.#gauge.report(reading);
    this.#seen = Gauge.quality(numbers);
    this.#showQuality();
    const rounded = Object.entries(numbers).map(([name, number]) => [name, Math.round(number * 1e4) / 1e4]);
    this.#signaling.send({ type: "stats", ...Object.fromEntries(rounded) });
  }

  #qualityTold({ mine, peer }) {
    this.#told = mine;
    this.#showQuality(peer);
  }

  /** The page sees a standstill first; else the gateway judges better, since it knows which losses are the peer's. */
  #showQuality(peer = this.peerQuality) {
    const told = this.#signaling.open ? this.#told : null;
    const mine = this.#stall && peer !== "lost" ? "lost" : (told ?? this.#seen);
    if (mine === this.quality && peer === this.peerQuality) return;
    this.quality = mine;
    this.peerQuality = peer;
    this.#emit("quality", { mine, peer });
  }

  #listen() {
    const { signal } = this.#listeners;
    addEventListener("online", () => this.#signaling?.connect(), { signal });
    navigator.connection?.addEventListener?.("change", () => this.#signaling?.probe(), { signal });
    navigator.mediaDevices.addEventListener("devicechange", () => this.#emit("devices"), { signal });
  }

  // ------------------------------------------------------------------------------------------------- media and the end

  async #openOne(kind) {
    const [error] = await this.#media.open({ [kind]: true });
    if (error) throw error;
  }

  #deviceLost(kind) {
    this.#link?.setTrack(kind, null, this.localStream);
    this.#mediaChanged();
    this.#emit("error", new ParleyError(kind === "audio" ? "microphone_lost" : "camera_lost"));
  }

  #mediaChanged() {
    if (this.#signaling && !this.result) {
      this.#seat.write({ media: this.media });
      this.#signaling.send({ type: "media", ...this.media });
    }
    this.#emit("media");
  }

  #hangUp() {
    if (this.localStream.getTracks().length) this.#lastMedia = this.media;
    this.#link?.close();
    this.#link = null;
    this.#stall = null;
    this.#media.stop();
    this.#emit("media");
  }

  /** Ends once; later calls only complete the summary (the receipt's link comes when the receipt exists). */
  #finish({ reason, summary: told }) {
    const summary = final(told);
    const first = this.result === null;
    this.result = { reason: summary || first ? reason : this.result.reason, summary: summary ?? this.result?.summary ?? null };
    if (first) {
      this.#hangUp();
      this.#seat.write({ joined: false });
      this.#setState("ended");
    }
    this.#emit("ended", this.result);
  }

  #fail(error) {
    this.error = error;
    this.#signaling?.send({ type: "leave" });
    this.#signaling?.stop();
    this.#seat.write({ joined: false });
    this.#hangUp();
    this.#setState("failed");
    this.#emit("error", error);
    return "stop";
  }

  #take(entry) {
    this.entry = entry;
    this.payment = entry.payment ?? null;
    this.peer.name = entry.peer?.name ?? "";
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
