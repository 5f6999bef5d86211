/* The results of a feed's jobs, out of a topic that holds everybody's: those of others are told by a record header and not decoded. */
#include "admin.h"
#include "clock.h"
#include "err.h"
#include "feed.h"
#include "gatherd/v1/result.pb-c.h"

#define POLL_RECORDS_MAX 1000
static const char job_prefix[] = "feed/";

struct reader_part {
	int64_t end; /* as it was at the beginning */
	bool is_current, is_started;
};

struct feed_reader {
	struct client *client;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	struct reader_part *parts;
	int n_parts, n_current;
	feed_result_fn fn;
	void *ctx;
};

static void set_current(struct feed_reader *reader, int32_t partition)
{
	struct reader_part *part = &reader->parts[partition];

	reader->n_current += !part->is_current;
	part->is_current = true;
}

static bool is_feeds(const rd_kafka_message_t *msg)
{
	rd_kafka_headers_t *headers;
	const void *value;
	size_t len;

	if (!msg->payload || !msg->len || rd_kafka_message_headers(msg, &headers))
		return false;
	return !rd_kafka_header_get_last(headers, "gatherd-job-id", &value, &len) && len > sizeof(job_prefix) - 1 &&
	       memcmp(value, job_prefix, sizeof(job_prefix) - 1) == 0;
}

static void on_record(struct feed_reader *reader, const rd_kafka_message_t *msg)
{
	bool is_past = msg->offset < reader->parts[msg->partition].end;

	if (!is_feeds(msg))
		return;
	Gatherd__V1__FetchResult *res = gatherd__v1__fetch_result__unpack(NULL, msg->len, msg->payload);
	/* A replay's results are no news. */
	if (res && !*res->replay_id)
		reader->fn(reader->ctx, res, is_past ? rd_kafka_message_timestamp(msg, NULL) : clock_epoch_ms(), is_past);
	if (res)
		gatherd__v1__fetch_result__free_unpacked(res, NULL);
}

static void on_message(struct feed_reader *reader, const rd_kafka_message_t *msg)
{
	if (!msg->err) {
		on_record(reader, msg);
		if (msg->offset + 1 >= reader->parts[msg->partition].end)
			set_current(reader, msg->partition);
	} else if (msg->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
		set_current(reader, msg->partition);
	}
	/* The rest is the library's to mend; that results stay away shows in the sources' ages. */
}

void feed_reader_poll(struct feed_reader *reader, int timeout_ms)
{
	rd_kafka_message_t *msg;

	rd_kafka_poll(client_handle(reader->client), 0);
	for (int i = 0; i < POLL_RECORDS_MAX && (msg = rd_kafka_consume_queue(reader->queue, i ? 0 : timeout_ms)); i++) {
		on_message(reader, msg);
		rd_kafka_message_destroy(msg);
	}
}

bool feed_reader_is_current(const struct feed_reader *reader)
{
	return reader->n_current == reader->n_parts;
}

static int start(struct feed_reader *reader, const char *topic, int64_t from_ms)
{
	rd_kafka_topic_partition_list_t *from = rd_kafka_topic_partition_list_new(reader->n_parts), *end;

	rd_kafka_topic_partition_list_add_range(from, topic, 0, reader->n_parts - 1);
	end = rd_kafka_topic_partition_list_copy(from);
	int err = admin_offsets_at(reader->client, end, RD_KAFKA_OFFSET_END);
	if (!err)
		err = admin_offsets_at(reader->client, from, from_ms);
	for (int i = 0; !err && i < reader->n_parts; i++) {
		reader->parts[i].end = end->elems[i].offset;
		if (from->elems[i].offset >= end->elems[i].offset)
			set_current(reader, i);
		if (rd_kafka_consume_start_queue(reader->topic, i, from->elems[i].offset, reader->queue)) {
			client_say(reader->client, "%s/%d cannot be read: %s", topic, i, rd_kafka_err2str(rd_kafka_last_error()));
			err = -ERR_KAFKA;
		}
		reader->parts[i].is_started = !err;
	}
	rd_kafka_topic_partition_list_destroy(from);
	rd_kafka_topic_partition_list_destroy(end);
	return err;
}

int feed_reader_new(struct ctl *ctl, const char *topic, int64_t from_ms, feed_result_fn fn, void *ctx,
		    struct feed_reader **ret_reader)
{
	struct feed_reader *reader = xcalloc(1, sizeof(*reader));
	const struct rd_kafka_metadata *md;

	*reader = (struct feed_reader){.client = client_new_reader(ctl, false), .fn = fn, .ctx = ctx};
	int err = reader->client ? client_metadata(reader->client, &md) : -ERR_INVALID;
	if (!err) {
		const struct rd_kafka_metadata_topic *found = client_need_topic(reader->client, md, topic);

		reader->n_parts = found ? found->partition_cnt : 0;
		reader->parts = xcalloc((size_t)reader->n_parts + 1, sizeof(reader->parts[0]));
		err = found ? 0 : -ERR_NOT_FOUND;
		rd_kafka_metadata_destroy(md);
	}
	if (!err) {
		reader->topic = rd_kafka_topic_new(client_handle(reader->client), topic, NULL);
		reader->queue = rd_kafka_queue_new(client_handle(reader->client));
		err = start(reader, topic, from_ms);
	}
	if (err)
		feed_reader_free(reader);
	else
		*ret_reader = reader;
	return err;
}

void feed_reader_free(struct feed_reader *reader)
{
	if (!reader)
		return;
	for (int i = 0; i < reader->n_parts; i++)
		if (reader->parts[i].is_started)
			rd_kafka_consume_stop(reader->topic, i);
	if (reader->queue)
		rd_kafka_queue_destroy(reader->queue);
	if (reader->topic)
		rd_kafka_topic_destroy(reader->topic);
	client_free(reader->client);
	free(reader->parts);
	free(reader);
}
