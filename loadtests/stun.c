/* Writes and tells apart the STUN messages of an ICE caller; SHA-1, HMAC and CRC-32 included, so that the generator
 * needs no library. */
#include "stun.h"

#include <string.h>

static const uint8_t COOKIE[4] = {0x21, 0x12, 0xa4, 0x42};

struct sha1 {
    uint32_t state[5];
    uint8_t block[64];
    size_t used;
    uint64_t total;
};

static uint32_t rotate(uint32_t value, int bits) { return value << bits | value >> (32 - bits); }

static void sha1_block(struct sha1 *sha)
{
    uint32_t w[80], a = sha->state[0], b = sha->state[1], c = sha->state[2], d = sha->state[3], e = sha->state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)sha->block[4 * i] << 24 | (uint32_t)sha->block[4 * i + 1] << 16 |
               (uint32_t)sha->block[4 * i + 2] << 8 | sha->block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) f = (b & c) | (~b & d), k = 0x5a827999;
        else if (i < 40) f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (i < 60) f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
        else f = b ^ c ^ d, k = 0xca62c1d6;
        uint32_t next = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    sha->state[0] += a, sha->state[1] += b, sha->state[2] += c, sha->state[3] += d, sha->state[4] += e;
    sha->used = 0;
}

static void sha1_start(struct sha1 *sha)
{
    static const uint32_t initial[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    memcpy(sha->state, initial, sizeof initial);
    sha->used = 0, sha->total = 0;
}

static void sha1_add(struct sha1 *sha, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    sha->total += size;
    while (size--) {
        sha->block[sha->used++] = *bytes++;
        if (sha->used == 64) sha1_block(sha);
    }
}

static void sha1_end(struct sha1 *sha, uint8_t digest[20])
{
    uint64_t bits = sha->total * 8;
    uint8_t one = 0x80, zero = 0, length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha1_add(sha, &one, 1);
    while (sha->used != 56) sha1_add(sha, &zero, 1);
    sha1_add(sha, length, 8);
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(sha->state[i / 4] >> (24 - 8 * (i % 4)));
}

static void hmac_sha1(const char *key, const uint8_t *data, size_t size, uint8_t digest[20])
{
    uint8_t pad[64], inner[20];
    size_t length = strlen(key) < 64 ? strlen(key) : 64;
    struct sha1 sha;
    for (size_t i = 0; i < 64; i++) pad[i] = (i < length ? (uint8_t)key[i] : 0) ^ 0x36;
    sha1_start(&sha), sha1_add(&sha, pad, 64), sha1_add(&sha, data, size), sha1_end(&sha, inner);
    for (size_t i = 0; i < 64; i++) pad[i] ^= 0x36 ^ 0x5c;
    sha1_start(&sha), sha1_add(&sha, pad, 64), sha1_add(&sha, inner, 20), sha1_end(&sha, digest);
}

static uint32_t crc32(const uint8_t *data, size_t size)
{
    uint32_t crc = 0xffffffff;
    while (size--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static void put16(uint8_t *at, size_t value) { at[0] = (uint8_t)(value >> 8), at[1] = (uint8_t)value; }

static void put32(uint8_t *at, uint32_t value) { put16(at, value >> 16), put16(at + 2, value & 0xffff); }

static size_t attribute(uint8_t *out, size_t at, uint16_t kind, const void *value, size_t size)
{
    size_t padded = (size + 3) & ~(size_t)3;
    put16(out + at, kind), put16(out + at + 2, size);
    memset(out + at + 4, 0, padded);
    if (size) memcpy(out + at + 4, value, size);
    return at + 4 + padded;
}

static void header(uint8_t *out, uint16_t kind, const uint8_t transaction[12])
{
    put16(out, kind);
    memcpy(out + 4, COOKIE, 4);
    memcpy(out + 8, transaction, 12);
}

/* MESSAGE-INTEGRITY and FINGERPRINT; each covers a header whose length ends with itself. */
static size_t seal(uint8_t *out, size_t at, const char *password)
{
    uint8_t digest[20], check[4];
    put16(out + 2, at - 20 + 24);
    hmac_sha1(password, out, at, digest);
    at = attribute(out, at, 0x0008, digest, 20);
    put16(out + 2, at - 20 + 8);
    put32(check, crc32(out, at) ^ 0x5354554e);
    return attribute(out, at, 0x8028, check, 4);
}

enum stun_kind stun_read(const uint8_t *data, size_t size, uint8_t transaction[12])
{
    if (size < 20 || data[0] > 3 || memcmp(data + 4, COOKIE, 4) != 0) return STUN_NONE;
    memcpy(transaction, data + 8, 12);
    if (data[0] == 0 && data[1] == 1) return STUN_REQUEST;
    return data[0] == 1 && data[1] == 1 ? STUN_SUCCESS : STUN_OTHER;
}

size_t stun_check(uint8_t *out, const uint8_t transaction[12], const struct credentials *own,
                  const struct credentials *relay)
{
    char username[2 * sizeof own->ufrag];
    uint8_t priority[4], tie_breaker[8] = {0, 0, 0, 0, 0, 0, 0, 7};
    size_t split = strlen(relay->ufrag), length = split + 1 + strlen(own->ufrag), at = 20;
    memcpy(username, relay->ufrag, split);
    username[split] = ':';
    memcpy(username + split + 1, own->ufrag, length - split - 1);
    put32(priority, 1845501695); /* of a peer-reflexive candidate (RFC 8445 section 7.1.1) */
    header(out, 0x0001, transaction);
    at = attribute(out, at, 0x0006, username, length);
    at = attribute(out, at, 0x0024, priority, 4);
    at = attribute(out, at, 0x802a, tie_breaker, 8);
    at = attribute(out, at, 0x0025, NULL, 0);
    return seal(out, at, relay->password);
}

size_t stun_answer(uint8_t *out, const uint8_t transaction[12], const struct credentials *own,
                   const struct sockaddr_in *source)
{
    uint8_t mapped[8] = {0, 1};
    memcpy(mapped + 2, &source->sin_port, 2);
    memcpy(mapped + 4, &source->sin_addr, 4);
    for (int i = 0; i < 2; i++) mapped[2 + i] ^= COOKIE[i];
    for (int i = 0; i < 4; i++) mapped[4 + i] ^= COOKIE[i];
    header(out, 0x0101, transaction);
    return seal(out, attribute(out, 20, 0x0020, mapped, 8), own->password);
}
