// Answers the page around us with the test card that was chosen; nothing of a real card can be entered here.
"use strict";
addEventListener("message", ({ data, source, origin }) => {
  if (source !== parent || data?.ask !== "payment_method") return;
  const { value, dataset } = document.getElementById("card").selectedOptions[0];
  const answer = value
    ? { paymentMethod: { id: value, card: { brand: dataset.brand, last4: dataset.last4 } } }
    : { error: { type: "validation_error", code: "incomplete_number", message: "Your card number is incomplete." } };
  source.postMessage({ id: data.id, answer }, origin);
});
