/* STUN Binding messages as an ICE caller needs them (RFC 8489, RFC 8445 section 7). */
#ifndef PARLEY_STUN_H
#define PARLEY_STUN_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define STUN_MAX 600

/* One side's username fragment and password. */
struct credentials {
    char ufrag[80];
    char password[80];
};

enum stun_kind { STUN_NONE, STUN_REQUEST, STUN_SUCCESS, STUN_OTHER };

/* What a datagram is; on a message its 12-byte transaction id is copied. Integrity is not checked: the generator
 * trusts the relay that it measures. */
enum stun_kind stun_read(const uint8_t *data, size_t size, uint8_t transaction[12]);

/* A nominating check of `own` towards `relay`, into `out` (at least STUN_MAX bytes); its length. */
size_t stun_check(uint8_t *out, const uint8_t transaction[12], const struct credentials *own,
                  const struct credentials *relay);

/* The answer to a check that came from `source`, signed with our own password. */
size_t stun_answer(uint8_t *out, const uint8_t transaction[12], const struct credentials *own,
                   const struct sockaddr_in *source);

#endif
