/** Types of Parley's browser SDK (parley.js). Money is in minor units, times are whole seconds unless a name says ms. */

export const SDK: string;

export type Role = "client" | "expert";
export type Language = string;

/**
 * Codes that the SDK raises itself. The gateway's own codes (`bad_sdp`, `rate_limited`, …) pass through unchanged,
 * so a string of another value is possible.
 */
export type ErrorCode =
  | "action_required" | "audio_blocked" | "bad_fingerprint" | "camera_in_use" | "camera_lost" | "hello_timeout"
  | "expert_not_payable" | "insecure_context" | "link_expired" | "link_invalid" | "meeting_not_open" | "microphone_in_use"
  | "microphone_lost" | "no_camera" | "no_microphone" | "not_connected" | "permission_denied" | "protocol" | "replaced" | "sas_failed" | "session_ended"
  | "token_invalid" | "token_used" | "unreachable" | "unsupported_browser" | (string & {});

export class ParleyError extends Error {
  constructor(code: ErrorCode, options?: { message?: string; fatal?: boolean; cause?: unknown });
  readonly code: ErrorCode;
  /** The call cannot go on. */
  readonly fatal: boolean;
  /** Set on errors of `openMedia`, `setCamera`, `setMicrophone` and `switchDevice`. */
  device?: "camera" | "microphone";
}

export interface MediaState {
  audio: boolean;
  video: boolean;
}

export interface Generation {
  mine: number;
  peer: number;
  transport: number;
}

export interface Pricing {
  currency: string;
  /** Per minute, minor units. */
  unit_amount: number;
  free_seconds: number;
  limit_seconds: number;
  /** The most that this call can cost; the client only. */
  amount_max?: number;
  /** Of a booked meeting: paid before, whatever it lasts; minor units. */
  fee?: number;
  commission_bps?: number;
}

export interface Payment {
  status:
    | "none" | "awaiting_join" | "pending" | "action_required" | "held" | "failed" | "capturing" | "captured" | "released"
    | "due" | "refunded" | "partially_refunded" | "disputed";
  amount_held?: number;
  card?: { brand: string; last4: string } | null;
  /** Milliseconds since the epoch. */
  hold_until?: number | null;
  /** Where the bank's confirmation takes place. */
  action_url?: string | null;
  decline_code?: string | null;
}

export interface Summary {
  duration_seconds: number;
  billable_seconds: number;
  free_seconds: number;
  amount_total: number;
  /** The expert only. */
  amount_expert?: number;
  currency: string;
  /** Null until the receipt exists; a second `ended` event brings it. */
  receipt_url: string | null;
  /** Both may go on in a new session. */
  continue: boolean;
}

export interface Result {
  reason: string;
  /** Null while the gateway still adds up. */
  summary: Summary | null;
}

/** What a link's secret is exchanged for, before joining. */
export interface Entry {
  session: string;
  role: Role;
  token: string;
  signal: string;
  status: string;
  media: "voice" | "video";
  locale: Language;
  you: { name: string };
  peer: { name: string };
  pricing: Pricing;
  payment: Payment | null;
  terms: { version: string; text: string };
  expires_at: number;
  /** A page to pay with another card, on an origin of its own; the client only, and only while a card is wanted. */
  pay_url?: string | null;
  end: Result | null;
}

export type CallState =
  /** In the lobby. */
  | "new"
  /** On the way into the room. */
  | "joining"
  /** In the room, alone. */
  | "waiting"
  /** The peer is there, media is not yet. */
  | "connecting"
  | "connected"
  | "reconnecting"
  | "ended"
  /** Opened elsewhere; `useHere()` takes it back. */
  | "replaced"
  | "failed";

export type PeerState = "absent" | "joined" | "connected" | "reconnecting" | "left";

export interface Peer {
  state: PeerState;
  name: string;
  media: MediaState | null;
}

export interface Meter {
  elapsed: number;
  billable: number;
  remaining: number;
  billing: "free" | "running" | "paused";
  /** What would be charged now; the client. */
  cost?: number;
  /** Net of commission; the expert. */
  earnings?: number;
  currency: string;
}

export interface Warning {
  remaining: number;
  reason: "limit_ending" | "cap_ending" | "free_ending";
}

export interface SasSymbol {
  emoji: string;
  /** In English; a page translates it. */
  name: string;
}

export interface Sas {
  /** none: no connection yet, or a new one after a reload; verifying; ready: compare; failed: somebody may be in between. */
  state: "none" | "verifying" | "ready" | "failed";
  symbols: SasSymbol[];
}

export type Quality = "excellent" | "good" | "poor" | "lost";

export interface Continuation {
  state: "possible" | "offered" | "peer_wants" | "agreed" | "failed";
  /** The most that the next call can cost; the client only. */
  amount_max?: number;
  /** With `agreed`: how its money stands; the message comes again when that changes. */
  payment?: Payment;
  /** With `failed`: why. */
  code?: string;
  session?: string;
  url?: string;
  token?: string;
}

/** `detail` of each event. */
export interface CallEvents {
  /** Each change of `call.state`. */
  state: { state: CallState; before: CallState };
  /** Media flows for the first time. */
  connected: undefined;
  /** Media has stopped; the SDK is at work on it. */
  reconnecting: undefined;
  reconnected: undefined;
  /** The socket came, went, or failed again. A call goes on without it. */
  signaling: { open: boolean; failures: number };
  peer: Peer & { replaced: boolean };
  /** Local or remote tracks, or their being on, have changed. */
  media: undefined;
  /** Devices were plugged in or out, or the speaker was chosen. */
  devices: undefined;
  meter: Meter;
  warning: Warning;
  status: { status: string; payment?: Payment };
  /** The call became free: the fee was waived, or the expert may not be paid. `entry` has it too. */
  pricing: Pricing;
  /** Null: not known yet. `mine` is the worse of what this page measures and what the gateway says. */
  quality: { mine: Quality | null; peer: Quality | null };
  sas: Sas;
  continue: Continuation;
  replaced: undefined;
  /** May come again with the receipt's link. */
  ended: Result;
  error: ParleyError;
}

/** The signs a short authentication string is made of. */
export const SAS_SYMBOLS: readonly SasSymbol[];

/** The one fingerprint of a description, 64 hex digits. Raises `bad_fingerprint` unless all lines agree and are sha-256. */
export function fingerprintOf(sdp: string): string;

/**
 * The verification by itself, for a page that speaks the protocol without `Call`: start it with both fingerprints in
 * use (hex) once connected, feed it the peer's `sas` messages.
 */
export class Sas {
  constructor(options: {
    session: string;
    role: Role;
    generation: Pick<Generation, "mine" | "peer">;
    clock: { after(ms: number, job: () => void): unknown };
    send(message: { type: "sas"; step: "commit" | "nonce" | "reveal"; value: string }): void;
    ready(symbols: SasSymbol[]): void;
    failed(error: ParleyError): void;
  });
  start(local: string, remote: string): Promise<void>;
  receive(message: { step: "commit" | "nonce" | "reveal"; value: string }): Promise<void>;
  /** After a reconnect of the socket: sends again what is unanswered. */
  repeat(): void;
  stop(): void;
}

export class Call extends EventTarget {
  /** Exchanges a link's secret for price, terms and payment. Raises ParleyError. `gateway` defaults to the page's origin. */
  static enter(secret: string, options?: { gateway?: string }): Promise<Call>;

  readonly entry: Entry;
  readonly session: string;
  readonly role: Role;
  readonly state: CallState;
  readonly peer: Peer;
  readonly payment: Payment | null;
  readonly meter: Meter | null;
  readonly quality: Quality | null;
  readonly peerQuality: Quality | null;
  readonly sas: Sas;
  readonly result: Result | null;
  readonly error: ParleyError | null;
  /** The gateway's last `welcome`, as it came. */
  readonly welcome: Record<string, unknown> | null;
  readonly peerConnection: RTCPeerConnection | null;
  readonly localStream: MediaStream;
  readonly remoteStream: MediaStream | null;
  readonly media: MediaState;
  readonly lastMedia: MediaState;
  readonly signaling: { open: boolean; failures: number };
  /** This tab was in the call before a reload. */
  readonly resumable: boolean;
  readonly resumableMedia: MediaState | null;
  readonly speaker: string | null;
  readonly successor: Continuation | null;

  refresh(): Promise<Entry>;
  openMedia(wanted?: Partial<MediaState>): Promise<ParleyError[]>;
  devices(): Promise<Record<"audioinput" | "videoinput" | "audiooutput", MediaDeviceInfo[]>>;
  activeDevice(kind: MediaDeviceKind): string | null;
  switchDevice(kind: MediaDeviceKind, deviceId: string): Promise<void>;
  setMicrophone(on: boolean): Promise<void>;
  setCamera(on: boolean): Promise<void>;
  join(options?: { consent?: boolean }): Promise<void>;
  leave(): void;
  rate(stars: 1 | 2 | 3 | 4 | 5, options?: { comment?: string; parameters?: Record<string, number> }): void;
  continue(): void;
  /** After `continue` is agreed: the next call, to be joined as any other. */
  next(): Promise<Call>;
  useHere(): Promise<void>;
  simulate(what: "socket-drop" | "socket-doubt" | "ice-restart"): void;
  close(): void;

  addEventListener<Name extends keyof CallEvents>(
    type: Name,
    listener: (event: CustomEvent<CallEvents[Name]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<Name extends keyof CallEvents>(
    type: Name,
    listener: (event: CustomEvent<CallEvents[Name]>) => void,
    options?: boolean | EventListenerOptions,
  ): void;
}
