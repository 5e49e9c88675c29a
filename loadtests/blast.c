/* Sends RTP-like packets by flows through a relay and counts what comes out on the other side.
 *
 * Driven by lines on standard input, one answer line each ("ok ...", "error ...", or a JSON object for `run`):
 *   open ADDRESS                      a new UDP socket          -> ok SOCKET PORT
 *   adopt FD                          an inherited one          -> ok SOCKET PORT
 *   to SOCKET ADDRESS PORT            connects it
 *   ice SOCKET UFRAG PASSWORD RELAY_UFRAG RELAY_PASSWORD        checks are made and answered on it from now on
 *   checks MS COUNT                   each of the first COUNT ICE sockets checks that often; the others do not, and
 *                                     do not answer any more either
 *   join MS                           checks until every ICE socket had an answer and a challenge   -> ok JOINED
 *   flow FROM TO [HEX]                packets from socket FROM arrive at TO; HEX precedes each      -> ok FLOW
 *   pool FILE COUNT LENGTH            ready-made packets for the next run: COUNT for each flow, in flow order
 *   prime                             one packet on each flow   -> ok DELIVERED
 *   run KEY=VALUE ... group=FIRST,COUNT,PPS,BURST,SIZE ...
 *       seconds, gso (bursts as one train by UDP_SEGMENT), stamp (delays by kernel time stamps),
 *       window (packets in flight at most, as fast as they come back; PPS is then ignored)
 */
#define _GNU_SOURCE
#include "stun.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define SOCKETS 20000
#define FLOWS 20000
#define GROUPS 4
#define BATCH 64
#define SIZE 2048
#define HEADER 12 /* of RTP */
#define STAMP 8   /* CLOCK_REALTIME in nanoseconds, behind the header */
#define BUCKETS 2048
#define DRAIN_NS 300000000LL
#define STALL_NS 20000000LL
#define LATE_NS 100000000LL
#define LATE_STAMPED_NS 1000000LL
#define BUFFER_OCTETS (4 * 1024 * 1024)

struct sock {
    int fd, flow, place; /* flow: which arrives here, or -1; place among the ICE sockets */
    bool ice, confirmed, challenged;
    struct credentials own, relay;
};

struct flow {
    int from, prefix_size;
    uint8_t prefix[8];
    uint32_t next, expected, taken; /* sequence numbers sent and awaited; packets taken from the pool */
};

struct group {
    int first, count, burst, size, cursor;
    double interval, next;
};

static struct sock sockets[SOCKETS];
static struct flow flows[FLOWS];
static struct group groups[GROUPS];
static int socket_count, flow_count, group_count, epoll_fd, ice_cursor, ice_count;
static int ice_sockets[SOCKETS], check_count = SOCKETS;
static int64_t check_interval, next_check;
static uint8_t *pool;
static size_t pool_octets, pool_count, pool_length;
static bool gso, stamp;
static int64_t window, inflight, sent, delivered, delivered_octets, refused, stalls, last_arrival;
static int64_t histogram[BUCKETS];
static uint64_t random_state = 88172645463325252ULL;

static uint8_t arriving[BATCH][SIZE], leaving[BATCH * SIZE];
static struct iovec arriving_iov[BATCH], leaving_iov[BATCH];
static struct sockaddr_in sources[BATCH];
static struct mmsghdr arriving_msg[BATCH], leaving_msg[BATCH];
static uint8_t controls[BATCH][64];

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static uint64_t next_random(void)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return random_state;
}

/* --- delays: 32 buckets for each power of two, so a percentile is right to 3 % */

static void note_delay(int64_t ns)
{
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;
    int shift = value < 32 ? 0 : 58 - __builtin_clzll(value);
    size_t bucket = value < 32 ? value : ((size_t)shift + 1) * 32 + (value >> shift) - 32;
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static double delay_us(double quantile)
{
    int64_t total = 0, seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) total += histogram[i];
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (total && (double)seen >= quantile * (double)total)
            return (double)(i < 32 ? i : (i % 32 + 32) << (i / 32 - 1)) / 1000;
    }
    return 0;
}

/* --- ICE */

static void send_check(struct sock *sock)
{
    uint8_t message[STUN_MAX], transaction[12];
    for (int i = 0; i < 12; i++) transaction[i] = (uint8_t)(next_random() >> 24);
    size_t size = stun_check(message, transaction, &sock->own, &sock->relay);
    if (send(sock->fd, message, size, MSG_DONTWAIT) < 0) refused++;
}

static void take_stun(struct sock *sock, const uint8_t *data, size_t size, const struct sockaddr_in *source)
{
    uint8_t message[STUN_MAX], transaction[12];
    enum stun_kind kind = stun_read(data, size, transaction);
    if (kind == STUN_SUCCESS) sock->confirmed = true;
    if (kind != STUN_REQUEST || !sock->ice || sock->place >= check_count) return;
    sock->challenged = true;
    size = stun_answer(message, transaction, &sock->own, source);
    if (send(sock->fd, message, size, MSG_DONTWAIT) < 0) refused++;
}

static void do_checks(int64_t now)
{
    int count = check_count < ice_count ? check_count : ice_count;
    if (!check_interval || !count) return;
    if (now - next_check > 1000000000LL) next_check = now;
    for (int i = 0; i < 16 && next_check <= now; i++) {
        ice_cursor = (ice_cursor + 1) % count;
        send_check(&sockets[ice_sockets[ice_cursor]]);
        next_check += check_interval / count;
    }
}

/* --- arrivals */

static void note_arrival(struct sock *sock, const uint8_t *data, size_t size)
{
    struct flow *flow = sock->flow < 0 ? NULL : &flows[sock->flow];
    /* RTCP shares the range (RFC 5761 section 4) and is not ours. */
    if (!flow || size < HEADER || data[0] >> 6 != 2 || (data[1] >= 192 && data[1] <= 223)) return;
    uint16_t ahead = (uint16_t)((uint16_t)(data[2] << 8 | data[3]) - (uint16_t)flow->expected);
    if (ahead < 32768) {
        inflight -= ahead + 1;
        flow->expected += (uint32_t)ahead + 1;
    }
    delivered++;
    delivered_octets += (int64_t)size;
}

static void note_stamp(struct msghdr *message, const uint8_t *data)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg; cmsg = CMSG_NXTHDR(message, cmsg))
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec at;
            int64_t left;
            memcpy(&at, CMSG_DATA(cmsg), sizeof at);
            memcpy(&left, data + HEADER, sizeof left);
            note_delay(at.tv_sec * 1000000000LL + at.tv_nsec - left);
        }
}

static void receive_from(struct sock *sock)
{
    int count;
    do {
        for (int i = 0; i < BATCH; i++) {
            struct msghdr *message = &arriving_msg[i].msg_hdr;
            message->msg_namelen = sizeof sources[i];
            message->msg_control = stamp ? controls[i] : NULL;
            message->msg_controllen = stamp ? sizeof controls[i] : 0;
        }
        count = recvmmsg(sock->fd, arriving_msg, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++) {
            size_t size = arriving_msg[i].msg_len;
            if (size && arriving[i][0] <= 3) {
                take_stun(sock, arriving[i], size, &sources[i]);
            } else {
                int64_t before = delivered;
                note_arrival(sock, arriving[i], size);
                if (stamp && delivered > before) note_stamp(&arriving_msg[i].msg_hdr, arriving[i]);
            }
        }
        if (count > 0) last_arrival = now_ns();
    } while (count == BATCH);
}

/* Everything that has come; false if standard input is waiting. */
static bool receive_all(int timeout_ms)
{
    static struct epoll_event events[512];
    bool quiet = true;
    int count = epoll_wait(epoll_fd, events, 512, timeout_ms);
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == SOCKETS) quiet = false;
        else receive_from(&sockets[events[i].data.u32]);
    }
    return quiet;
}

/* --- departures */

static size_t write_packet(uint8_t *at, struct flow *flow, size_t size, int64_t wall)
{
    uint32_t sequence = flow->next++, number = (uint32_t)(flow - flows) + 1;
    uint8_t *rtp = at + flow->prefix_size;
    memcpy(at, flow->prefix, (size_t)flow->prefix_size);
    rtp[0] = 0x80, rtp[1] = 96, rtp[2] = (uint8_t)(sequence >> 8), rtp[3] = (uint8_t)sequence;
    memcpy(rtp + 4, &sequence, 4);
    memcpy(rtp + 8, &number, 4);
    memcpy(rtp + HEADER, &wall, STAMP);
    return (size_t)flow->prefix_size + size;
}

static int fill(struct flow *flow, int count, size_t size)
{
    int64_t wall = clock_ns(CLOCK_REALTIME);
    for (int i = 0; i < count; i++) {
        leaving_iov[i].iov_base = leaving + (size_t)i * (size + (size_t)flow->prefix_size);
        leaving_iov[i].iov_len = write_packet(leaving_iov[i].iov_base, flow, size, wall);
    }
    return count;
}

static int fill_from_pool(struct flow *flow, int count)
{
    int i;
    for (i = 0; i < count && flow->taken < pool_count; i++) {
        uint8_t *packet = pool + ((size_t)(flow - flows) * pool_count + flow->taken++) * pool_length;
        leaving_iov[i] = (struct iovec){packet, pool_length};
        flow->next = (uint32_t)(packet[2] << 8 | packet[3]) + 1;
        if (flow->taken == 1) flow->expected = flow->next - 1;
    }
    return i;
}

static int send_train(int fd, int count)
{
    union { char octets[CMSG_SPACE(sizeof(uint16_t))]; struct cmsghdr align; } control = {0};
    struct iovec all = {leaving_iov[0].iov_base, leaving_iov[0].iov_len * (size_t)count};
    struct msghdr message = {.msg_iov = &all, .msg_iovlen = 1, .msg_control = control.octets,
                             .msg_controllen = sizeof control.octets};
    uint16_t size = (uint16_t)leaving_iov[0].iov_len;
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
    cmsg->cmsg_level = IPPROTO_UDP, cmsg->cmsg_type = UDP_SEGMENT, cmsg->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(cmsg), &size, sizeof size);
    return sendmsg(fd, &message, 0) < 0 ? 0 : count;
}

static int send_burst(int number, int burst, size_t size)
{
    struct flow *flow = &flows[number];
    int fd = sockets[flow->from].fd, count = pool ? fill_from_pool(flow, burst) : fill(flow, burst, size), done = 0;
    if (gso && count > 1) done = send_train(fd, count);
    while (!(gso && count > 1) && done < count) {
        int more = sendmmsg(fd, leaving_msg + done, (unsigned)(count - done), 0);
        if (more <= 0) break;
        done += more;
    }
    sent += done, inflight += count, refused += count - done;
    return count;
}

/* --- runs */

/* Not for gaps that are hardly longer than the going to sleep. With delays measured control shares this core, and gets
 * even short ones. */
static void rest(int64_t until)
{
    int64_t gap = until - now_ns(), early = stamp ? 8000 : 20000;
    if (gap < (stamp ? 16000 : 60000)) return;
    struct timespec pause = {0, (gap > 5000000 ? 5000000 : gap) - early};
    nanosleep(&pause, NULL);
}

static struct group *soonest(void)
{
    struct group *first = &groups[0];
    for (int i = 1; i < group_count; i++)
        if (groups[i].next < first->next) first = &groups[i];
    return first;
}

/* Bursts at jittered instants, flows in turn. What is late is made up for, up to a tenth of a second; when delays are
 * measured only up to a millisecond, since a generator that was held up would fill the relay's queue by itself. */
static void run_paced(int64_t end)
{
    int unbroken = 0;
    double late = stamp ? LATE_STAMPED_NS : LATE_NS;
    for (int64_t now = now_ns(); now < end; now = now_ns()) {
        struct group *group = soonest();
        if (group->next > (double)now || ++unbroken > 8) {
            unbroken = 0;
            receive_all(0);
            do_checks(now);
            rest((int64_t)group->next < end ? (int64_t)group->next : end);
            continue;
        }
        send_burst(group->first + group->cursor, group->burst, (size_t)group->size);
        group->cursor = (group->cursor + 1) % group->count;
        group->next += group->interval * (0.5 + (double)(next_random() >> 40) / (1 << 24));
        if ((double)now - group->next > late) group->next = (double)now;
    }
}

static void forget_inflight(void)
{
    for (int i = 0; i < flow_count; i++) flows[i].expected = flows[i].next;
    inflight = 0;
    stalls++;
    last_arrival = now_ns();
}

/* As fast as packets come back: never more than `window` under way, so nothing overflows and the relay never rests. */
static void run_windowed(int64_t end)
{
    struct group *group = &groups[0];
    int idle = 0;
    last_arrival = now_ns();
    for (int64_t now = last_arrival; now < end && idle <= group->count; now = now_ns()) {
        receive_all(0);
        do_checks(now);
        for (int i = 0; i < 8 && inflight + group->burst <= window && idle <= group->count; i++) {
            int count = send_burst(group->first + group->cursor, group->burst, (size_t)group->size);
            group->cursor = (group->cursor + 1) % group->count;
            idle = count ? 0 : idle + 1;
        }
        if (now - last_arrival > STALL_NS) forget_inflight();
    }
}

static void drain(void)
{
    int64_t end = now_ns() + DRAIN_NS;
    last_arrival = now_ns();
    while (now_ns() < end && inflight > 0 && now_ns() - last_arrival < DRAIN_NS / 3) {
        receive_all(0);
        do_checks(now_ns());
        rest(now_ns() + 200000);
    }
}

static void set_stamps(void)
{
    int on = stamp;
    for (int i = 0; i < socket_count; i++)
        setsockopt(sockets[i].fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
}

static void reset_counters(void)
{
    sent = delivered = delivered_octets = refused = stalls = inflight = 0;
    memset(histogram, 0, sizeof histogram);
    for (int i = 0; i < flow_count; i++) flows[i].expected = flows[i].next, flows[i].taken = 0;
}

static bool add_group(const char *text)
{
    struct group *group = &groups[group_count];
    double pps;
    memset(group, 0, sizeof *group);
    if (group_count == GROUPS || sscanf(text, "%d,%d,%lf,%d,%d", &group->first, &group->count, &pps, &group->burst,
                                        &group->size) != 5) return false;
    if (group->first < 0 || group->count < 1 || group->first + group->count > flow_count || group->burst < 1 ||
        group->burst > BATCH || group->size < HEADER + STAMP || group->size > 1472 - 8 || pps <= 0) return false;
    group->interval = 1e9 * group->burst / pps;
    group_count++;
    return true;
}

static void command_run(char *line)
{
    double seconds = 1;
    group_count = 0, window = 0, gso = stamp = false;
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " ")) {
        if (sscanf(word, "seconds=%lf", &seconds) == 1 || sscanf(word, "window=%ld", &window) == 1) continue;
        if (!strcmp(word, "gso=1")) gso = true;
        else if (!strcmp(word, "stamp=1")) stamp = true;
        else if (strncmp(word, "group=", 6) || !add_group(word + 6)) { puts("error bad run"); return; }
    }
    if (!group_count) { puts("error no group"); return; }
    set_stamps();
    reset_counters();
    int64_t start = now_ns();
    for (int i = 0; i < group_count; i++)
        groups[i].next = (double)start + groups[i].interval * (double)(next_random() >> 40) / (1 << 24);
    if (window) run_windowed(start + (int64_t)(seconds * 1e9));
    else run_paced(start + (int64_t)(seconds * 1e9));
    double lasted = (double)(now_ns() - start) / 1e9;
    int64_t in_time = delivered;
    drain();
    printf("{\"seconds\": %.6f, \"sent\": %ld, \"delivered\": %ld, \"in_time\": %ld, \"octets\": %ld, \"refused\": %ld, "
           "\"stalls\": %ld, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f}\n",
           lasted, sent, delivered, in_time, delivered_octets, refused, stalls, delay_us(0.5), delay_us(0.99),
           delay_us(0.999), delay_us(1));
    if (pool) munmap(pool, pool_octets), pool = NULL;
}

/* --- commands */

static struct sock *known(int number) { return number >= 0 && number < socket_count ? &sockets[number] : NULL; }

static void add_socket(int fd)
{
    struct sockaddr_in self = {.sin_family = AF_INET};
    socklen_t length = sizeof self;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)socket_count};
    int octets = BUFFER_OCTETS;
    if (fd < 0 || socket_count == SOCKETS || getsockname(fd, (struct sockaddr *)&self, &length) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        printf("error socket: %s\n", strerror(errno));
        return;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &octets, sizeof octets);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    sockets[socket_count] = (struct sock){.fd = fd, .flow = -1};
    printf("ok %d %d\n", socket_count++, ntohs(self.sin_port));
}

static void command_open(const char *line)
{
    char address[64];
    struct sockaddr_in self = {.sin_family = AF_INET};
    int fd = -1;
    if (sscanf(line, "open %63s", address) == 1 && inet_pton(AF_INET, address, &self.sin_addr) == 1)
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&self, sizeof self) != 0) close(fd), fd = -1;
    add_socket(fd);
}

static void command_to(const char *line)
{
    char address[64];
    int number, port;
    struct sockaddr_in peer = {.sin_family = AF_INET};
    bool parsed = sscanf(line, "to %d %63s %d", &number, address, &port) == 3 && known(number);
    peer.sin_port = htons((uint16_t)(parsed ? port : 0));
    if (!parsed || inet_pton(AF_INET, address, &peer.sin_addr) != 1 ||
        connect(sockets[number].fd, (struct sockaddr *)&peer, sizeof peer) != 0) puts("error to");
    else puts("ok");
}

static void command_ice(const char *line)
{
    struct credentials own, relay;
    int number;
    if (sscanf(line, "ice %d %79s %79s %79s %79s", &number, own.ufrag, own.password, relay.ufrag, relay.password) != 5 ||
        !known(number) || sockets[number].ice) { puts("error ice"); return; }
    sockets[number].own = own, sockets[number].relay = relay, sockets[number].ice = true;
    sockets[number].place = ice_count;
    ice_sockets[ice_count++] = number;
    puts("ok");
}

static void command_checks(const char *line)
{
    long every_ms;
    if (sscanf(line, "checks %ld %d", &every_ms, &check_count) != 2) { puts("error checks"); return; }
    check_interval = every_ms * 1000000LL;
    puts("ok");
}

static int joined(void)
{
    int count = 0;
    for (int i = 0; i < ice_count; i++) {
        struct sock *sock = &sockets[ice_sockets[i]];
        count += sock->confirmed && sock->challenged;
    }
    return count;
}

/* Checks of all that have not joined yet are spread over half a second a round, so that no buffer overflows. */
static void command_join(const char *line)
{
    int limit_ms = 0;
    sscanf(line, "join %d", &limit_ms);
    int64_t end = now_ns() + limit_ms * 1000000LL;
    while (joined() < ice_count && now_ns() < end) {
        int64_t round = now_ns();
        for (int i = 0; i < ice_count; i++) {
            struct sock *sock = &sockets[ice_sockets[i]];
            if (!(sock->confirmed && sock->challenged)) send_check(sock);
            if (i % 8 == 7) receive_all(0), rest(now_ns() + 500000);
        }
        while (joined() < ice_count && now_ns() - round < 500000000LL) receive_all(0), rest(now_ns() + 500000);
    }
    printf("ok %d\n", joined());
}

static void command_flow(const char *line)
{
    struct flow flow = {0};
    int to, read = 0;
    unsigned octet;
    if (sscanf(line, "flow %d %d%n", &flow.from, &to, &read) != 2 || !known(flow.from) || !known(to) ||
        flow_count == FLOWS) { puts("error flow"); return; }
    for (line += read; *line == ' '; line++);
    for (; flow.prefix_size < 8 && sscanf(line, "%2x", &octet) == 1; line += 2)
        flow.prefix[flow.prefix_size++] = (uint8_t)octet;
    flows[flow_count] = flow;
    sockets[to].flow = flow_count;
    printf("ok %d\n", flow_count++);
}

static void command_pool(const char *line)
{
    char path[512];
    struct stat about = {0};
    void *mapped = MAP_FAILED;
    int fd = sscanf(line, "pool %511s %zu %zu", path, &pool_count, &pool_length) == 3 ? open(path, O_RDONLY) : -1;
    if (fd >= 0 && fstat(fd, &about) == 0 && (size_t)about.st_size >= pool_count * pool_length * (size_t)flow_count)
        mapped = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (fd >= 0) close(fd);
    if (mapped == MAP_FAILED) { puts("error pool"); return; }
    pool = mapped, pool_octets = (size_t)about.st_size;
    puts("ok");
}

static void command_prime(void)
{
    window = 0, gso = stamp = false;
    reset_counters();
    for (int i = 0; i < flow_count; i++) {
        send_burst(i, 1, 100);
        if (i % 8 == 7) receive_all(0), rest(now_ns() + 200000);
    }
    drain();
    printf("ok %ld\n", delivered);
}

static void command(char *line)
{
    if (!strncmp(line, "open ", 5)) command_open(line);
    else if (!strncmp(line, "adopt ", 6)) add_socket(atoi(line + 6));
    else if (!strncmp(line, "to ", 3)) command_to(line);
    else if (!strncmp(line, "ice ", 4)) command_ice(line);
    else if (!strncmp(line, "checks ", 7)) command_checks(line);
    else if (!strncmp(line, "join ", 5)) command_join(line);
    else if (!strncmp(line, "flow ", 5)) command_flow(line);
    else if (!strncmp(line, "pool ", 5)) command_pool(line);
    else if (!strcmp(line, "prime")) command_prime();
    else if (!strncmp(line, "run ", 4)) command_run(line + 4);
    else puts("error unknown command");
    fflush(stdout);
}

static bool read_commands(void)
{
    static char text[65536];
    static size_t used;
    ssize_t size = read(0, text + used, sizeof text - used - 1);
    if (size <= 0) return false;
    used += (size_t)size;
    for (char *end; (end = memchr(text, '\n', used));) {
        size_t length = (size_t)(end - text) + 1;
        *end = 0;
        command(text);
        memmove(text, end + 1, used - length);
        used -= length;
    }
    return used < sizeof text - 1;
}

static void prepare_buffers(void)
{
    for (int i = 0; i < BATCH; i++) {
        arriving_iov[i] = (struct iovec){arriving[i], SIZE};
        arriving_msg[i].msg_hdr = (struct msghdr){.msg_name = &sources[i], .msg_iov = &arriving_iov[i], .msg_iovlen = 1};
        leaving_msg[i].msg_hdr = (struct msghdr){.msg_iov = &leaving_iov[i], .msg_iovlen = 1};
    }
    memset(leaving, 0x55, sizeof leaving);
}

int main(void)
{
    struct epoll_event input = {.events = EPOLLIN, .data.u32 = SOCKETS};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &input) != 0) return perror("blast"), 1;
    prctl(PR_SET_TIMERSLACK, 1000);
    random_state ^= (uint64_t)clock_ns(CLOCK_REALTIME) << 16;
    prepare_buffers();
    for (;;) {
        int64_t now = now_ns(), gap = check_interval && check_count && ice_count ? (next_check - now) / 1000000 : 1000;
        if (!receive_all(gap < 0 ? 0 : gap > 1000 ? 1000 : (int)gap + 1) && !read_commands()) return 0;
        do_checks(now_ns());
    }
}
