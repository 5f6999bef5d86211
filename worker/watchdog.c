#include "watchdog.h"

#include "clock.h"
#include "thread.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nobody else's: librdkafka, libcurl and libevent use none of these. */
#define SIGNUM (SIGRTMIN + 10)
#define LOOKS_PER_LIMIT 5
#define FRAMES_MAX 48
#define STACK_TEXT_MAX 2048
/* A thread that does not take its signal in this time is inside the kernel for good. */
#define ANSWER_MS 1000
/* A log that nobody reads does not keep the process. */
#define FLUSH_MS 1000

enum sample { SAMPLE_NONE, SAMPLE_ASKED, SAMPLE_TAKEN };

struct watchdog {
	struct log *log;
	int64_t limit_us, tick_us, log_every_us, give_up_us;
	pthread_t watched, thread;
	pthread_mutex_t mutex; /* for the thread's sleep only: the loop takes no lock */
	pthread_cond_t wake;
	bool is_closing; /* guarded by mutex */

	_Atomic int64_t since_us;   /* when this turn began; 0 = in none. Tells turns apart, too */
	_Atomic int64_t stalled_us; /* since_us of the last turn that was a stall */
	_Atomic int64_t logged_us;  /* and of the last that was logged */

	_Atomic int sample; /* enum sample */
	_Atomic int64_t asked_us;
	void *frames[FRAMES_MAX]; /* written by the handler while SAMPLE_ASKED, read after */
	int n_frames, n_skip;

	/* the thread's own */
	int64_t next_log_us;
	int64_t n_held; /* stalls not logged since the last that was */
};

/* ---- the watched thread ---- */

void watchdog_begin(struct watchdog *dog, int64_t now_us)
{
	if (dog)
		atomic_store_explicit(&dog->since_us, now_us, memory_order_relaxed);
}

bool watchdog_end(struct watchdog *dog, int64_t now_us)
{
	if (!dog)
		return false;
	int64_t since_us = atomic_load_explicit(&dog->since_us, memory_order_relaxed);
	atomic_store_explicit(&dog->since_us, 0, memory_order_relaxed);
	if (!since_us || atomic_load_explicit(&dog->stalled_us, memory_order_relaxed) != since_us)
		return false;
	if (atomic_load(&dog->logged_us) == since_us)
		log_warn(dog->log, "the loop goes on", LOG_NUM("turn_ms", (now_us - since_us) / US_PER_MS));
	return true;
}

/* Between any two instructions of the watched thread: nothing here may lock or allocate. */
static void on_signal(int signum, siginfo_t *info, void *context)
{
	struct watchdog *dog = info->si_value.sival_ptr;
	int saved = errno;

	/* Only what we sent carries our pointer. */
	if (info->si_code != SI_QUEUE || info->si_pid != getpid() || atomic_load(&dog->sample) != SAMPLE_ASKED)
		return;
	dog->n_frames = dog->n_skip = 0;
	if (atomic_load(&dog->since_us) == atomic_load(&dog->asked_us)) {
		dog->n_frames = backtrace(dog->frames, FRAMES_MAX);
		/* What was interrupted comes after the frame that we return to. */
		while (dog->n_skip < dog->n_frames && dog->frames[dog->n_skip] != __builtin_return_address(0))
			dog->n_skip++;
		dog->n_skip = dog->n_skip < dog->n_frames ? dog->n_skip + 1 : 0;
	}
	atomic_store(&dog->sample, SAMPLE_TAKEN);
	errno = saved;
}

/* ---- names of addresses ---- */

/* Our own program's whole symbol table: most functions are static, and those the dynamic linker does not know. */
struct image {
	const uint8_t *data; /* NULL = could not be read */
	size_t size;
	uintptr_t bias;
	const void *base;
	const ElfW(Sym) * syms;
	size_t n_syms;
	const char *names;
};

static void find_symbols(struct image *image)
{
	const ElfW(Ehdr) *head = (const void *)image->data;
	const ElfW(Shdr) *sections = (const void *)(image->data + head->e_shoff);

	if (head->e_shoff + head->e_shnum * sizeof(*sections) > image->size)
		return;
	image->bias = head->e_type == ET_DYN ? (uintptr_t)image->base : 0;
	for (size_t i = 0; i < head->e_shnum; i++) {
		const ElfW(Shdr) *section = &sections[i];
		if (section->sh_type != SHT_SYMTAB || section->sh_link >= head->e_shnum)
			continue;
		image->syms = (const void *)(image->data + section->sh_offset);
		image->n_syms = section->sh_size / sizeof(*image->syms);
		image->names = (const char *)(image->data + sections[section->sh_link].sh_offset);
	}
}

static void image_open(struct image *image)
{
	struct stat st;
	Dl_info info;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	*image = (struct image){0};
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && dladdr(&on_signal, &info)) {
		void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (data != MAP_FAILED) {
			*image = (struct image){.data = data, .size = (size_t)st.st_size, .base = info.dli_fbase};
			find_symbols(image);
		}
	}
	close(fd);
}

static void image_close(struct image *image)
{
	if (image->data)
		munmap((void *)(uintptr_t)image->data, image->size);
}

static const char *image_name(const struct image *image, uintptr_t address, size_t *ret_offset)
{
	for (size_t i = 0; i < image->n_syms; i++) {
		const ElfW(Sym) *sym = &image->syms[i];
		if (ELF64_ST_TYPE(sym->st_info) != STT_FUNC || address - image->bias - sym->st_value >= sym->st_size)
			continue;
		*ret_offset = address - image->bias - sym->st_value;
		return image->names + sym->st_name;
	}
	return NULL;
}

/* "name+0x1f", or what addr2line and its like take: "file+0x1234". */
static int print_frame(char *out, size_t max, const struct image *image, void *frame)
{
	/* A return address may be past its function's end. */
	uintptr_t address = (uintptr_t)frame - 1;
	size_t offset = 0;
	const char *name = NULL;
	Dl_info info;

	if (!dladdr((void *)address, &info))
		return snprintf(out, max, "%p", frame);
	if (info.dli_fbase == image->base)
		name = image_name(image, address, &offset);
	if (!name && info.dli_sname) {
		name = info.dli_sname;
		offset = address - (uintptr_t)info.dli_saddr;
	}
	if (!name) {
		name = strrchr(info.dli_fname, '/');
		name = name ? name + 1 : info.dli_fname;
		offset = address - (uintptr_t)info.dli_fbase;
	}
	return snprintf(out, max, "%s+0x%zx", name, offset + 1);
}

/* Innermost first: "nanosleep+0x1f < on_timer+0x20 < ...". */
static void print_stack(const struct watchdog *dog, char out[static STACK_TEXT_MAX])
{
	struct image image;
	size_t len = 0;

	image_open(&image);
	for (int i = dog->n_skip; i < dog->n_frames && len < STACK_TEXT_MAX - 8; i++) {
		len += (size_t)snprintf(out + len, STACK_TEXT_MAX - len, "%s", i > dog->n_skip ? " < " : "");
		int n = print_frame(out + len, STACK_TEXT_MAX - len, &image, dog->frames[i]);
		len = MIN(len + (size_t)MAX(n, 0), (size_t)STACK_TEXT_MAX - 1);
	}
	image_close(&image);
}

/* ---- the thread ---- */

static void take_stack(struct watchdog *dog, int64_t since_us, char out[static STACK_TEXT_MAX])
{
	union sigval value = {.sival_ptr = dog};

	atomic_store(&dog->asked_us, since_us);
	/* One that was not answered yet is still on its way. */
	if (atomic_load(&dog->sample) != SAMPLE_ASKED) {
		atomic_store(&dog->sample, SAMPLE_ASKED);
		if (pthread_sigqueue(dog->watched, SIGNUM, value))
			atomic_store(&dog->sample, SAMPLE_NONE);
	}
	for (int ms = 0; ms < ANSWER_MS && atomic_load(&dog->sample) == SAMPLE_ASKED; ms++)
		usleep(1000);
	if (atomic_load(&dog->sample) != SAMPLE_TAKEN)
		snprintf(out, STACK_TEXT_MAX, "none: the thread takes no signal");
	else if (dog->n_frames == 0)
		snprintf(out, STACK_TEXT_MAX, "none: the turn has ended");
	else
		print_stack(dog, out);
}

static void on_stall(struct watchdog *dog, int64_t since_us, int64_t now_us)
{
	char stack[STACK_TEXT_MAX] = "";

	if (atomic_load(&dog->stalled_us) != since_us)
		dog->n_held++;
	atomic_store(&dog->stalled_us, since_us);
	if (now_us < dog->next_log_us)
		return;
	dog->next_log_us = now_us + dog->log_every_us;
	if (atomic_load(&dog->logged_us) != since_us)
		dog->n_held--;
	atomic_store(&dog->logged_us, since_us);
	take_stack(dog, since_us, stack);
	log_warn(dog->log, "the loop stands still", LOG_NUM("turn_ms", (now_us - since_us) / US_PER_MS),
		 LOG_NUM("not_logged_before", dog->n_held), LOG_STR("stack", stack));
	dog->n_held = 0;
}

/* What the supervisor's restart mends, and nothing else does. */
static void give_up(struct watchdog *dog, int64_t since_us, int64_t now_us)
{
	dog->next_log_us = 0;
	on_stall(dog, since_us, now_us);
	/* It went on while we asked where it was. */
	if (atomic_load(&dog->since_us) != since_us)
		return;
	log_error(dog->log, "cannot go on", LOG_STR("code", "LOOP_STALLED"),
		  LOG_STR("detail", "a turn of the event loop does not end: the process does"),
		  LOG_NUM("turn_ms", (now_us - since_us) / US_PER_MS));
	log_flush(dog->log, FLUSH_MS);
	_exit(1);
}

/* One look's time, or the end. */
static bool wait_tick(struct watchdog *dog)
{
	int64_t until_us = clock_now_us() + dog->tick_us;
	struct timespec until = {until_us / US_PER_S, until_us % US_PER_S * 1000};

	pthread_mutex_lock(&dog->mutex);
	while (!dog->is_closing && pthread_cond_timedwait(&dog->wake, &dog->mutex, &until) != ETIMEDOUT)
		;
	bool is_closing = dog->is_closing;
	pthread_mutex_unlock(&dog->mutex);
	return !is_closing;
}

static void *watch(void *ctx)
{
	struct watchdog *dog = ctx;
	int64_t turn_us = 0, seen_us = 0, last_us = clock_now_us();

	while (wait_tick(dog)) {
		int64_t now_us = clock_now_us(), since_us = atomic_load(&dog->since_us);
		if (since_us != turn_us) {
			turn_us = since_us;
			seen_us = 0;
		}
		/* Of time in which we did not run either, at most one look more. */
		seen_us += MIN(now_us - MAX(last_us, since_us), 2 * dog->tick_us);
		last_us = now_us;
		if (since_us && seen_us >= dog->give_up_us)
			give_up(dog, since_us, now_us);
		else if (since_us && seen_us >= dog->limit_us)
			on_stall(dog, since_us, now_us);
	}
	return NULL;
}

/* ---- making and freeing ---- */

struct watchdog *watchdog_new(struct log *log, int64_t limit_us, int64_t log_every_us, int64_t give_up_us)
{
	struct watchdog *dog = xcalloc(1, sizeof(*dog));
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
	pthread_condattr_t attr;
	sigset_t own;

	dog->log = log;
	dog->limit_us = limit_us;
	dog->tick_us = limit_us / LOOKS_PER_LIMIT;
	dog->log_every_us = log_every_us;
	dog->give_up_us = give_up_us;
	dog->watched = pthread_self();
	/* The first call loads a library and allocates; those in the handler then do not. */
	backtrace(dog->frames, FRAMES_MAX);
	sigaction(SIGNUM, &action, NULL);
	sigemptyset(&own);
	sigaddset(&own, SIGNUM);
	pthread_sigmask(SIG_UNBLOCK, &own, NULL);
	pthread_mutex_init(&dog->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&dog->wake, &attr);
	pthread_condattr_destroy(&attr);
	if (thread_start(&dog->thread, watch, dog))
		abort();
	return dog;
}

void watchdog_free(struct watchdog *dog)
{
	if (!dog)
		return;
	pthread_mutex_lock(&dog->mutex);
	dog->is_closing = true;
	pthread_cond_signal(&dog->wake);
	pthread_mutex_unlock(&dog->mutex);
	pthread_join(dog->thread, NULL);
	/* A signal still on its way carries our address: it is for this very thread, which takes it now at the latest.
	 */
	while (atomic_load(&dog->sample) == SAMPLE_ASKED)
		usleep(1000);
	pthread_mutex_destroy(&dog->mutex);
	pthread_cond_destroy(&dog->wake);
	free(dog);
}
