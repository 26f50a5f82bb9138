// A second implementation of the signatures, with Node's standard library alone: node verify_vectors.mjs FILE
// Exits 0 when every vector agrees, otherwise 1 with the names of those that differ.

import { createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

// RFC 8785: Array.sort compares UTF-16 units, JSON.stringify writes strings and numbers as the RFC demands.
// The object is written by hand because JavaScript would put keys that look like integers first.
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${members.join(",")}}`;
}

const sha256Hex = (data) => createHash("sha256").update(data).digest("hex");
const sign = (secret, message) => createHmac("sha256", secret).update(message).digest("hex");

const v1Message = ({ image_url, auth }) => `${image_url}|${auth.ts}`;

function v2Message({ image_url, image_base64, text, in_batch, auth }) {
  const imagePath = in_batch ? "/v1/embed/image-batch" : "/v1/embed/image";
  const path = text === undefined ? imagePath : "/v1/embed/text";
  const hashed = text === undefined ? Buffer.from(image_base64 ?? "", "base64") : text;
  return `POST|${path}|${image_url ?? sha256Hex(hashed)}|${auth.ts}`;
}

function v3Message({ input }) {
  const { auth, ...covered } = input;
  const { kid, iat, exp, nonce } = auth;
  return ["clip-embed/v3", kid, iat, exp, nonce, sha256Hex(canonical(covered))].join("\n");
}

const vectors = JSON.parse(readFileSync(process.argv[2], "utf8"));
const wrong = vectors.canonical.filter(({ value, json }) => canonical(value) !== json);
let checked = vectors.canonical.length;
for (const [version, messageOf] of Object.entries({ v1: v1Message, v2: v2Message, v3: v3Message })) {
  for (const vector of vectors[version]) {
    const { kid = vector.kid, sig } = vector.auth ?? vector.input.auth;
    const message = messageOf(vector);
    if (message !== vector.message || sign(vectors.secrets[kid], message) !== sig) wrong.push(vector);
    checked += 1;
  }
}
console.log(wrong.length ? `differ: ${wrong.map(({ name }) => name).join("; ")}` : `${checked} vectors agree`);
process.exit(wrong.length ? 1 : 0);
