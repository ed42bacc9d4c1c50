// Joins two network namespaces by a link with delay, rate and loss, in user space (for kernels without netem).
//   far_link NS_A NS_B DELAY_MS RATE_MBIT LOSS_PERCENT QUEUE_MS      (rate 0: no limit)
// Makes the device "far0" in each namespace (TUN with offloads: packets of up to 64 KiB cross in one piece).
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 65536
#define MAX 65600
struct packet { uint64_t due; uint32_t len; unsigned char *data; };
struct direction { int in, out; struct packet ring[SLOTS]; uint32_t head, tail; uint64_t free_at, dropped, passed; };

static uint64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static int tun_in(const char *ns) {
  char path[256]; snprintf(path, sizeof path, "/var/run/netns/%s", ns);
  int home = open("/proc/self/ns/net", O_RDONLY), there = open(path, O_RDONLY);
  if (home < 0 || there < 0 || setns(there, CLONE_NEWNET)) { perror(path); exit(1); }
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  struct ifreq r; memset(&r, 0, sizeof r); strcpy(r.ifr_name, "far0"); r.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (fd < 0 || ioctl(fd, TUNSETIFF, &r)) { perror("tun"); exit(1); }
  int hdr = 10; ioctl(fd, TUNSETVNETHDRSZ, &hdr);
  if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)) perror("offload");
  setns(home, CLONE_NEWNET); close(home); close(there); return fd;
}
int main(int argc, char **argv) {
  if (argc != 7) { fprintf(stderr, "usage: far_link NS_A NS_B DELAY_MS RATE_MBIT LOSS_PERCENT QUEUE_MS\n"); return 2; }
  uint64_t delay = atof(argv[3]) * 1e6; double rate = atof(argv[4]) * 1e6 / 8e9; /* bytes a ns */ double loss = atof(argv[5]) / 100; uint64_t queue = atof(argv[6]) * 1e6;
  static struct direction d[2]; d[0].in = tun_in(argv[1]); d[0].out = tun_in(argv[2]); d[1].in = d[0].out; d[1].out = d[0].in;
  for (int i = 0; i < 2; i++) for (int k = 0; k < SLOTS; k++) d[i].ring[k].data = 0;
  printf("ready\n"); fflush(stdout); srand48(1);
  static unsigned char buf[MAX];
  for (;;) {
    uint64_t next = UINT64_MAX, t = now_ns();
    for (int i = 0; i < 2; i++) {
      struct direction *q = &d[i];
      for (int n = 0; n < 64 && q->head - q->tail < SLOTS; n++) {
        ssize_t len = read(q->in, buf, MAX); if (len <= 0) break;
        t = now_ns(); uint64_t start = q->free_at > t ? q->free_at : t;
        if ((loss > 0 && drand48() < loss) || (rate > 0 && start - t > queue)) { q->dropped++; continue; }
        if (rate > 0) q->free_at = start + len / rate; else q->free_at = t;
        struct packet *p = &q->ring[q->head % SLOTS]; p->data = malloc(len); memcpy(p->data, buf, len); p->len = len; p->due = q->free_at + delay; q->head++;
      }
      t = now_ns();
      while (q->tail != q->head) {
        struct packet *p = &q->ring[q->tail % SLOTS]; if (p->due > t) { if (p->due < next) next = p->due; break; }
        if (write(q->out, p->data, p->len) < 0 && errno != EINVAL && errno != EIO) { if (errno == EAGAIN) { next = t + 50000; break; } }
        q->passed++; free(p->data); p->data = 0; q->tail++;
      }
    }
    struct pollfd f[2] = {{d[0].in, POLLIN, 0}, {d[1].in, POLLIN, 0}};
    struct timespec w = {0, 0}, *wp = 0; if (next != UINT64_MAX) { uint64_t n = now_ns(); uint64_t left = next > n ? next - n : 0; w.tv_sec = left / 1000000000ull; w.tv_nsec = left % 1000000000ull; wp = &w; }
    ppoll(f, 2, wp, 0);
  }
}
