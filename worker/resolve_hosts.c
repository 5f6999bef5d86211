#include "resolve_internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#define uthash_malloc(size) xmalloc(size)
#include <uthash.h>

#define NAME_MAX_LEN 255

struct entry {
	UT_hash_handle hh;
	struct address *v; /* in the file's order */
	size_t n;
	char name[];
};

struct resolve_hosts {
	struct entry *by_name;
};

static void entry_add(struct resolve_hosts *hosts, char *name, const struct address *addr)
{
	size_t len = strlen(name);
	struct entry *entry;

	if (len && name[len - 1] == '.')
		name[--len] = '\0';
	if (!len || len > NAME_MAX_LEN)
		return;
	for (char *c = name; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	HASH_FIND(hh, hosts->by_name, name, len, entry);
	if (!entry) {
		entry = xcalloc(1, sizeof(*entry) + len + 1);
		memcpy(entry->name, name, len);
		HASH_ADD(hh, hosts->by_name, name[0], len, entry);
	}
	if (entry->n == RESOLVE_ADDRESSES_MAX)
		return;
	entry->v = xrealloc(entry->v, (entry->n + 1) * sizeof(*entry->v));
	entry->v[entry->n++] = *addr;
}

/* "ADDRESS NAME...  # comment"; a line that is not so is skipped, as everybody does. */
static void read_line(struct resolve_hosts *hosts, char *line)
{
	static const char blanks[] = " \t\r\n";
	struct address addr;
	char *rest = NULL;

	line[strcspn(line, "#")] = '\0';
	char *word = strtok_r(line, blanks, &rest);
	if (!word || address_parse(word, &addr) < 0)
		return;
	while ((word = strtok_r(NULL, blanks, &rest)))
		entry_add(hosts, word, &addr);
}

struct resolve_hosts *resolve_hosts_new(const char *path, bool *ret_cut)
{
	struct resolve_hosts *hosts = xcalloc(1, sizeof(*hosts));
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0;

	*ret_cut = false;
	if (!file)
		return hosts;
	while (!*ret_cut && getline(&line, &cap, file) >= 0) {
		read_line(hosts, line);
		*ret_cut = HASH_COUNT(hosts->by_name) >= HOSTS_NAMES_MAX;
	}
	free(line);
	fclose(file);
	return hosts;
}

void resolve_hosts_free(struct resolve_hosts *hosts)
{
	struct entry *entry, *next;

	if (!hosts)
		return;
	HASH_ITER (hh, hosts->by_name, entry, next) {
		HASH_DEL(hosts->by_name, entry);
		free(entry->v);
		free(entry);
	}
	free(hosts);
}

static bool is_localhost(const char *host, size_t len)
{
	static const char suffix[] = "localhost";
	size_t n = sizeof(suffix) - 1;

	return len >= n && !strncasecmp(host + len - n, suffix, n) && (len == n || host[len - n - 1] == '.');
}

bool resolve_hosts_find(const struct resolve_hosts *hosts, const char *host, struct addresses *ret_addrs)
{
	struct address loopback[2] = {{.is_v6 = true, .v6 = IN6ADDR_LOOPBACK_INIT},
				      {.is_v6 = false, .v4 = {htonl(INADDR_LOOPBACK)}}};
	struct address v6[RESOLVE_ADDRESSES_MAX], v4[RESOLVE_ADDRESSES_MAX];
	size_t n_v6 = 0, n_v4 = 0, len = strlen(host);
	struct entry *entry;

	if (len && host[len - 1] == '.')
		len--;
	HASH_FIND(hh, hosts->by_name, host, len, entry);
	if (!entry) {
		if (!is_localhost(host, len))
			return false;
		resolve_alternate(&loopback[0], 1, &loopback[1], 1, ret_addrs);
		return true;
	}
	for (size_t i = 0; i < entry->n; i++) {
		if (entry->v[i].is_v6)
			v6[n_v6++] = entry->v[i];
		else
			v4[n_v4++] = entry->v[i];
	}
	resolve_alternate(v6, n_v6, v4, n_v4, ret_addrs);
	return true;
}
