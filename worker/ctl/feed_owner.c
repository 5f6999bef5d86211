/* One owner at a time, by Kafka's own means: a feed is a member of the group GROUP.feed.NAME, subscribed to the jobs topic, and the member
 * that is given partition 0 is the owner. Nothing is read. The range assignor gives the first partitions to the member whose id sorts
 * first, and an id begins with the client.id; that begins with the time of the start here, so the owner stays the owner when another
 * one comes, and that one stands by.
 * A feed that stands still for longer than session.timeout.ms loses the ownership, and may send a round once more before it hears of it:
 * both mean the same round, and it has the same job_id. */
#include "admin.h"
#include "clock.h"
#include "feed.h"

#include <unistd.h>

struct feed_owner {
	struct ctl *ctl;
	struct client *client;
	char group[512], name[128], member[160];
	const char *topic;
	bool is_owner, is_other, is_said; /* is_other: a member that is not the owner */
};

static void on_rebalance(void *ctx, bool is_assigned, const rd_kafka_topic_partition_list_t *list)
{
	struct feed_owner *owner = ctx;

	owner->is_owner = false;
	owner->is_other = is_assigned;
	for (int i = 0; is_assigned && i < list->cnt; i++)
		if (list->elems[i].partition == 0)
			owner->is_owner = true;
	if (owner->is_owner)
		owner->is_other = owner->is_said = false;
}

static int subscribe(struct feed_owner *owner)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);

	rd_kafka_topic_partition_list_add(list, owner->topic, RD_KAFKA_PARTITION_UA);
	rd_kafka_resp_err_t err = rd_kafka_subscribe(client_handle(owner->client), list);
	rd_kafka_topic_partition_list_destroy(list);
	if (err)
		ctl_say(owner->ctl, "the group %s cannot be joined: %s", owner->group, rd_kafka_err2str(err));
	return (int)err;
}

struct feed_owner *feed_owner_new(struct ctl *ctl, const char *name, const char *topic)
{
	struct feed_owner *owner = xcalloc(1, sizeof(*owner));
	char host[64] = "", group[256];

	owner->ctl = ctl;
	owner->topic = topic;
	admin_group_name(ctl, NULL, group, sizeof(group));
	snprintf(owner->group, sizeof(owner->group), "%s.feed.%s", group, name);
	gethostname(host, sizeof(host) - 1);
	snprintf(owner->name, sizeof(owner->name), "feed-%s-%ld", host, (long)getpid());
	/* As many digits each time: it is compared as text. */
	snprintf(owner->member, sizeof(owner->member), "%013lld-%s", (long long)clock_epoch_ms(), owner->name);
	const struct client_setting extra[] = {
	    {"group.id", owner->group, true},
	    {"client.id", owner->member, true},
	    {"group.instance.id", NULL, true},
	    {"partition.assignment.strategy", "range", true},
	    {"enable.auto.commit", "false", true},
	    {"enable.auto.offset.store", "false", true},
	    {NULL, NULL, false},
	};
	owner->client = client_new_member(ctl, extra, on_rebalance, owner);
	if (owner->client && !subscribe(owner))
		return owner;
	feed_owner_free(owner);
	return NULL;
}

void feed_owner_free(struct feed_owner *owner)
{
	if (!owner)
		return;
	if (owner->client)
		rd_kafka_consumer_close(client_handle(owner->client));
	client_free(owner->client);
	free(owner);
}

bool feed_owner_ask(struct feed_owner *owner)
{
	rd_kafka_message_t *msg;

	/* Errors are the broker's absence, which the library mends; the rest is what became of the group. */
	while ((msg = rd_kafka_consumer_poll(client_handle(owner->client), 0)))
		rd_kafka_message_destroy(msg);
	return owner->is_owner;
}

const char *feed_owner_name(const struct feed_owner *owner)
{
	return owner->name;
}

char *feed_owner_other(struct feed_owner *owner)
{
	const char *first = NULL, *host = "";
	struct admin_group about;

	if (!owner->is_other || owner->is_said)
		return NULL;
	owner->is_said = true;
	if (admin_group(owner->client, owner->group, &about))
		return xstrdup("another one");
	for (size_t i = 0; i < about.n_members; i++) {
		const struct rd_kafka_group_member_info *member = &about.info->members[i];

		if (first && strcmp(member->member_id, first) >= 0)
			continue;
		first = member->client_id;
		host = member->client_host;
	}
	/* Behind the time of its start. */
	const char *dash = first ? strchr(first, '-') : NULL;
	char *text = dash ? xasprintf("%s at %s", dash + 1, *host == '/' ? host + 1 : host) : xstrdup("another one");
	admin_group_done(&about);
	return text;
}
