/* watchdog - a thread that says what the loop is doing when a turn lasts too long, and ends the process when it does not end.
 *
 * Happy path: the loop says when a turn begins and ends (two atomic stores); the thread looks five times in each limit.
 * A stall: it sends the loop's thread a signal, whose handler notes the stack. That is logged with names, again in each
 *          log_every_us that the turn lasts, and the turn's length when it ends. Those between are counted.
 * No end:  a turn of give_up_us is logged once more, and the process ends by _exit(1), within about 2 s: nothing of it can be
 *          trusted to end in good order, and its supervisor is to start another.
 * Not a stall: a loop that waits; a process that stood still as a whole (SIGSTOP, a frozen machine), because the thread
 *          counts only time in which it ran itself.
 *
 * The signal may interrupt one system call of the stalled turn; SA_RESTART starts again what can be.
 * Layer 3: threads, signals. */
#ifndef GATHERD_WATCHDOG_H
#define GATHERD_WATCHDOG_H

#include "base.h"
#include "log.h"

struct watchdog;

/* Watches the turns of the calling thread. */
struct watchdog *watchdog_new(struct log *log, int64_t limit_us, int64_t log_every_us, int64_t give_up_us);
/* On the watched thread, not in a turn. NULL is fine. */
void watchdog_free(struct watchdog *dog);

/* The watched thread says these; NULL is nobody. */
void watchdog_begin(struct watchdog *dog, int64_t now_us);
/* Whether the turn was a stall. */
bool watchdog_end(struct watchdog *dog, int64_t now_us);

#endif
