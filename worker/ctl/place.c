/* place - partitions and where in them, as people give them. */
#include "admin.h"
#include "err.h"

#include <errno.h>

int place_number(const char *text, int64_t *ret_value)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (errno || end == text || *end || value < 0)
		return -ERR_INVALID;
	*ret_value = value;
	return 0;
}

int place_set(struct client *client, const char *option, const char *text, rd_kafka_topic_partition_list_t *list)
{
	int64_t offset, at_ms;

	if (strcmp(text, "earliest") == 0)
		return admin_offsets_at(client, list, RD_KAFKA_OFFSET_BEGINNING);
	if (strcmp(text, "latest") == 0)
		return admin_offsets_at(client, list, RD_KAFKA_OFFSET_END);
	if (!place_number(text, &offset)) {
		for (int i = 0; i < list->cnt; i++)
			list->elems[i].offset = offset;
		return 0;
	}
	if (!when_parse(text, &at_ms))
		return admin_offsets_at(client, list, at_ms);
	client_say(client, "--%s %s: must be earliest, latest, an offset, or a time such as 2026-11-01T00:00Z or 2h (ago)", option,
		   text);
	return -ERR_INVALID;
}

int place_partition(struct client *client, const char *text, const char *form, const rd_kafka_topic_partition_list_t *list,
		    int *ret_row, char **ret_rest)
{
	char *copy = xstrdup(text), *colon = strchr(copy, ':');
	int64_t partition = -1;
	int row = -1, n_found = 0;

	if (colon)
		*colon = '\0';
	char *slash = strrchr(copy, '/');
	if (slash)
		*slash = '\0';
	int err = place_number(slash ? slash + 1 : copy, &partition);
	for (int i = 0; !err && i < list->cnt; i++) {
		if (list->elems[i].partition != partition || (slash && strcmp(list->elems[i].topic, copy) != 0))
			continue;
		row = i;
		n_found++;
	}
	if (err)
		client_say(client, "--partition %s: must be %s", text, form);
	else if (n_found != 1)
		client_say(client, "--partition %s: %s", text,
			   n_found ? "several topics have it: TOPIC/P.." : "there is no such partition");
	err = err || n_found != 1 ? -ERR_INVALID : 0;
	if (!err) {
		*ret_row = row;
		*ret_rest = colon ? xstrdup(colon + 1) : NULL;
	}
	free(copy);
	return err;
}
