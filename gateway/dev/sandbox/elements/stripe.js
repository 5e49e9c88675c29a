// What the pay page needs of Stripe.js: a card element in a frame of our own origin, and a PaymentMethod out of it.
// https://docs.stripe.com/js/elements_object/create_element, https://docs.stripe.com/js/payment_methods/create_payment_method
"use strict";
(() => {
  const ORIGIN = new URL(document.currentScript.src).origin;

  class Card {
    #frame = document.createElement("iframe");
    #asked = new Map();
    #handlers = {};

    constructor() {
      this.#frame.src = `${ORIGIN}/v3/card`;
      this.#frame.title = "Test card";
      this.#frame.height = "48";
      this.#frame.style.cssText = "display:block;width:100%;border:0";
      this.#frame.addEventListener("load", () => this.#handlers.ready?.());
      addEventListener("message", (event) => this.#take(event));
    }

    mount(place) {
      (typeof place === "string" ? document.querySelector(place) : place).replaceChildren(this.#frame);
    }

    on(event, handler) {
      this.#handlers[event] = handler;
      return this;
    }

    focus() {
      this.#frame.focus();
    }

    unmount() {
      this.#frame.remove();
    }

    method() {
      const id = crypto.randomUUID();
      return new Promise((resolve) => {
        this.#asked.set(id, resolve);
        this.#frame.contentWindow.postMessage({ id, ask: "payment_method" }, ORIGIN);
      });
    }

    #take({ origin, source, data }) {
      if (origin !== ORIGIN || source !== this.#frame.contentWindow) return;
      this.#asked.get(data.id)?.(data.answer);
      this.#asked.delete(data.id);
    }
  }

  window.Stripe = (key) => {
    if (!/^pk_test_/.test(key)) throw new Error("The sandbox takes publishable keys of test mode: pk_test_…");
    return {
      elements: () => ({ create: () => new Card() }),
      createPaymentMethod: ({ card }) => card.method(),
    };
  };
})();
