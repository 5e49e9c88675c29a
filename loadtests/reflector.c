/* The least that a relay in user space can do: datagrams between pairs of addresses on one UDP port, in batches.
 *
 * It authenticates nothing, keeps no clock, gate or counter; so it is the yardstick of what the system calls cost.
 * Usage: reflector ADDRESS. Writes its port, then reads lines "PORT PORT" (pairs on the same address) and "go". */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define SIZE 2048

static struct sockaddr_in partner[65536]; /* by source port; family 0: unknown */
static char buffers[BATCH][SIZE];
static struct sockaddr_in sources[BATCH];
static struct iovec received[BATCH], passed[BATCH];
static struct mmsghdr in[BATCH], out[BATCH];

static int open_socket(const char *address)
{
    struct sockaddr_in self = {.sin_family = AF_INET};
    socklen_t length = sizeof self;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), octets = 7 * 1024 * 1024;
    if (fd < 0 || inet_pton(AF_INET, address, &self.sin_addr) != 1) return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &octets, sizeof octets);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &octets, sizeof octets) != 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &octets, sizeof octets);
    if (bind(fd, (struct sockaddr *)&self, length) != 0) return -1;
    getsockname(fd, (struct sockaddr *)&self, &length);
    printf("%d\n", ntohs(self.sin_port));
    fflush(stdout);
    return fd;
}

static void read_pairs(const char *address)
{
    char line[64];
    int one, two;
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%d %d", &one, &two) == 2) {
        int ports[2] = {one & 0xffff, two & 0xffff};
        for (int side = 0; side < 2; side++) {
            struct sockaddr_in *to = &partner[ports[side]];
            to->sin_family = AF_INET;
            to->sin_port = htons((uint16_t)ports[1 - side]);
            inet_pton(AF_INET, address, &to->sin_addr);
        }
    }
    puts("ok");
    fflush(stdout);
}

static int pass_on(int count)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        struct sockaddr_in *to = &partner[ntohs(sources[i].sin_port)];
        if (!to->sin_family) continue;
        passed[kept] = (struct iovec){buffers[i], in[i].msg_len};
        out[kept].msg_hdr = (struct msghdr){
            .msg_name = to, .msg_namelen = sizeof *to, .msg_iov = &passed[kept], .msg_iovlen = 1};
        kept++;
    }
    return kept;
}

int main(int argc, char **argv)
{
    int fd = argc == 2 ? open_socket(argv[1]) : -1;
    if (fd < 0) return perror("reflector"), 1;
    read_pairs(argv[1]);
    for (int i = 0; i < BATCH; i++) received[i] = (struct iovec){buffers[i], SIZE};
    for (;;) {
        for (int i = 0; i < BATCH; i++)
            in[i].msg_hdr = (struct msghdr){
                .msg_name = &sources[i], .msg_namelen = sizeof sources[i], .msg_iov = &received[i], .msg_iovlen = 1};
        int count = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL);
        if (count < 0) return perror("recvmmsg"), 1;
        int kept = pass_on(count);
        for (int sent = 0; sent < kept;) {
            int more = sendmmsg(fd, out + sent, (unsigned)(kept - sent), 0);
            sent += more > 0 ? more : 1; /* what the kernel refuses is dropped, as a network would */
        }
    }
}
