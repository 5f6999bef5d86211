/* floor - what the libraries alone cost: Kafka -> curl multis on libevent -> Kafka, without parsing, limits or safety.
 *
 *   floor [--lanes N] [--linger MS] [--ca FILE] [--fresh] [--dns ADDRESS:PORT] BROKERS GROUP JOBS_TOPIC RESULTS_TOPIC COUNT INFLIGHT
 *
 * Fetches COUNT bare-URL jobs, INFLIGHT at once, produces each body under its job's key, waits for the deliveries and commits. With N
 * lanes (1) the transfers are spread over N multis as the daemon spreads them; with --fresh each fetch opens a connection; with --dns
 * c-ares asks that server for each host, once. Prints `jobs=N cpu_us=N wall_us=N` (CPU of this process from the first job to the last
 * delivery). A yardstick for tests: never a worker. */
#include <ares.h>
#include <arpa/inet.h>
#include <curl/curl.h>
#include <event2/event.h>
#include <getopt.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <uthash.h>

#define LANES_MAX 256
#define LANE_SHARE 128	  /* transfers of one host before it takes another lane */
#define HOSTS (1u << 16) /* hosts are told apart by this many hash values */

struct lane {
	CURLM *multi;
	struct event *timer;
};

struct transfer {
	CURL *easy;
	unsigned host;
	char url[1024];
	struct curl_slist *to;
	char *key;
	size_t key_len;
	char *body;
	size_t len, cap;
	struct transfer *next;
};

struct known {
	char host[256], to[64];
	UT_hash_handle hh;
};

static struct event_base *base;
static ares_channel dns;
static const char *dns_server;
static struct known *known;
static struct lane lanes[LANES_MAX];
static int n_lanes = 1;
static const char *linger_ms = "1";
static unsigned under_way[HOSTS];
static const char *ca;
static long is_fresh;
static rd_kafka_t *consumer, *producer;
static rd_kafka_topic_t *results;
static struct transfer *idle;
static long wanted, started, fetched, delivered;

static void die(const char *what, const char *why)
{
	fprintf(stderr, "floor: %s: %s\n", what, why);
	exit(1);
}

static long cpu_us(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000L + use.ru_utime.tv_usec + use.ru_stime.tv_usec;
}

static long wall_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000L + ts.tv_nsec / 1000;
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
	struct transfer *transfer = ctx;
	size_t len = size * n;

	if (transfer->len + len > transfer->cap) {
		transfer->cap = transfer->len + len;
		transfer->body = realloc(transfer->body, transfer->cap);
	}
	memcpy(transfer->body + transfer->len, data, len);
	transfer->len += len;
	return len;
}

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *opaque)
{
	(void)rk;
	(void)opaque;
	if (msg->err)
		die("delivery", rd_kafka_err2str(msg->err));
	delivered++;
}

static void collect(struct lane *lane)
{
	int left;

	for (CURLMsg *msg; (msg = curl_multi_info_read(lane->multi, &left));) {
		struct transfer *transfer;
		CURL *easy = msg->easy_handle;
		if (msg->data.result != CURLE_OK)
			die("fetch", curl_easy_strerror(msg->data.result));
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
		curl_multi_remove_handle(lane->multi, easy);
		if (rd_kafka_produce(results, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_FREE, transfer->body, transfer->len, transfer->key,
				     transfer->key_len, NULL))
			die("produce", rd_kafka_err2str(rd_kafka_last_error()));
		transfer->body = NULL;
		under_way[transfer->host]--;
		curl_slist_free_all(transfer->to);
		transfer->to = NULL;
		transfer->next = idle;
		idle = transfer;
		fetched++;
	}
}

static void on_socket(evutil_socket_t fd, short what, void *ctx)
{
	struct lane *lane = ctx;
	int running, mask = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);

	curl_multi_socket_action(lane->multi, fd, mask, &running);
	collect(lane);
}

static void on_timeout(evutil_socket_t fd, short what, void *ctx)
{
	struct lane *lane = ctx;
	int running;

	(void)fd;
	(void)what;
	curl_multi_socket_action(lane->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	collect(lane);
}

static int socket_cb(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket)
{
	struct event *event = socket;
	struct lane *lane = ctx;

	(void)easy;
	if (event)
		event_free(event);
	event = NULL;
	if (what != CURL_POLL_REMOVE) {
		event = event_new(base, fd,
				  (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0) | EV_PERSIST, on_socket, lane);
		event_add(event, NULL);
	}
	curl_multi_assign(lane->multi, fd, event);
	return 0;
}

static int timer_cb(CURLM *m, long ms, void *ctx)
{
	struct timeval tv = {ms / 1000, ms % 1000 * 1000};
	struct lane *lane = ctx;

	(void)m;
	if (ms < 0)
		evtimer_del(lane->timer);
	else
		evtimer_add(lane->timer, &tv);
	return 0;
}

/* FNV-1a of scheme, host and port. */
static unsigned host_of(const char *url)
{
	const char *p = strstr(url, "://");
	unsigned hash = 2166136261u;

	for (p = p ? p + 3 : url; *p && *p != '/'; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619u;
	return hash % HOSTS;
}

static void take_key(struct transfer *transfer, const rd_kafka_message_t *msg)
{
	transfer->key = realloc(transfer->key, msg->key_len + 1);
	if (msg->key_len)
		memcpy(transfer->key, msg->key, msg->key_len);
	transfer->key_len = msg->key_len;
}

static void fetch(struct transfer *transfer)
{
	CURL *easy = transfer->easy;
	struct lane *lane = &lanes[(transfer->host + under_way[transfer->host]++ / LANE_SHARE) % (unsigned)n_lanes];

	curl_easy_reset(easy);
	curl_easy_setopt(easy, CURLOPT_URL, transfer->url);
	curl_easy_setopt(easy, CURLOPT_CONNECT_TO, transfer->to);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, is_fresh);
	/* Else libcurl looks through every address that it remembers with each transfer: with many hosts that is all that it does. */
	if (is_fresh)
		curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
	if (ca) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, ca);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
	curl_multi_add_handle(lane->multi, easy);
}

/* ---- names ---- */

static void on_dns(evutil_socket_t fd, short what, void *ctx)
{
	(void)ctx;
	ares_process_fd(dns, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
}

static void on_dns_socket(void *ctx, ares_socket_t fd, int readable, int writable)
{
	static struct event *events[1024];

	(void)ctx;
	if (fd >= 1024)
		die("c-ares", "too many sockets");
	if (events[fd])
		event_free(events[fd]);
	events[fd] = NULL;
	if (readable || writable) {
		events[fd] = event_new(base, fd, (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0) | EV_PERSIST, on_dns, NULL);
		event_add(events[fd], NULL);
	}
}

static bool host_copy(const char *url, char *host)
{
	struct in_addr addr;
	const char *p = strstr(url, "://");

	p = p ? p + 3 : url;
	snprintf(host, sizeof(known->host), "%.*s", (int)strcspn(p, ":/"), p);
	return inet_pton(AF_INET, host, &addr) != 1;
}

static void on_addresses(void *ctx, int status, int timeouts, struct ares_addrinfo *answer)
{
	struct transfer *transfer = ctx;
	struct known *host;

	(void)timeouts;
	if (status != ARES_SUCCESS)
		die(transfer->url, ares_strerror(status));
	host = calloc(1, sizeof(*host));
	host_copy(transfer->url, host->host);
	for (struct ares_addrinfo_node *node = answer->nodes; node; node = node->ai_next) {
		char text[INET_ADDRSTRLEN];
		if (node->ai_family != AF_INET)
			continue;
		inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)node->ai_addr)->sin_addr, text, sizeof(text));
		snprintf(host->to, sizeof(host->to), "::%s:", text);
	}
	ares_freeaddrinfo(answer);
	transfer->to = curl_slist_append(NULL, host->to);
	HASH_ADD_STR(known, host, host);
	fetch(transfer);
}

static void resolve(struct transfer *transfer)
{
	static const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_flags = ARES_AI_NOSORT};
	struct known *found;
	char host[sizeof(known->host)];

	if (!dns || !host_copy(transfer->url, host)) {
		fetch(transfer);
		return;
	}
	HASH_FIND_STR(known, host, found);
	if (!found) {
		ares_getaddrinfo(dns, host, NULL, &hints, on_addresses, transfer);
		return;
	}
	transfer->to = curl_slist_append(NULL, found->to);
	fetch(transfer);
}

/* A question that got lost is asked again. */
static void on_dns_time(evutil_socket_t fd, short what, void *ctx)
{
	(void)fd;
	(void)what;
	(void)ctx;
	ares_process_fd(dns, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void make_dns(void)
{
	static const struct timeval interval = {.tv_usec = 100000};
	char lookups[] = "b"; /* DNS alone, no hosts file */
	struct ares_options options = {.sock_state_cb = on_dns_socket, .timeout = 1000, .tries = 20, .lookups = lookups};

	if (ares_init_options(&dns, &options, ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS) ||
	    ares_set_servers_ports_csv(dns, dns_server))
		die("c-ares", dns_server);
	event_add(event_new(base, -1, EV_PERSIST, on_dns_time, NULL), &interval);
}

static void start(const rd_kafka_message_t *msg)
{
	struct transfer *transfer = idle;

	idle = transfer->next;
	transfer->len = transfer->cap = 0;
	snprintf(transfer->url, sizeof(transfer->url), "%.*s", (int)msg->len, (const char *)msg->payload);
	take_key(transfer, msg);
	transfer->host = host_of(transfer->url);
	resolve(transfer);
	started++;
}

static rd_kafka_t *make(rd_kafka_type_t type, const char *brokers, const char *group)
{
	char error[256];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	rd_kafka_conf_set(conf, "bootstrap.servers", brokers, NULL, 0);
	rd_kafka_conf_set(conf, "socket.nagle.disable", "true", NULL, 0);
	if (type == RD_KAFKA_CONSUMER) {
		rd_kafka_conf_set(conf, "group.id", group, NULL, 0);
		rd_kafka_conf_set(conf, "auto.offset.reset", "earliest", NULL, 0);
		rd_kafka_conf_set(conf, "enable.auto.commit", "false", NULL, 0);
		rd_kafka_conf_set(conf, "queued.min.messages", "20000", NULL, 0);
	} else {
		rd_kafka_conf_set(conf, "enable.idempotence", "true", NULL, 0);
		rd_kafka_conf_set(conf, "compression.type", "lz4", NULL, 0);
		rd_kafka_conf_set(conf, "linger.ms", linger_ms, NULL, 0);
		rd_kafka_conf_set(conf, "queue.buffering.max.messages", "1000000", NULL, 0);
		rd_kafka_conf_set_dr_msg_cb(conf, on_report);
	}
	rd_kafka_t *rk = rd_kafka_new(type, conf, error, sizeof(error));
	if (!rk)
		die("client", error);
	return rk;
}

static void make_lane(struct lane *lane, int inflight)
{
	lane->multi = curl_multi_init();
	lane->timer = evtimer_new(base, on_timeout, lane);
	curl_multi_setopt(lane->multi, CURLMOPT_SOCKETFUNCTION, socket_cb);
	curl_multi_setopt(lane->multi, CURLMOPT_SOCKETDATA, lane);
	curl_multi_setopt(lane->multi, CURLMOPT_TIMERFUNCTION, timer_cb);
	curl_multi_setopt(lane->multi, CURLMOPT_TIMERDATA, lane);
	curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS, (long)inflight * 2);
}

static void set_up(char **argv, int inflight)
{
	rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);

	consumer = make(RD_KAFKA_CONSUMER, argv[0], argv[1]);
	producer = make(RD_KAFKA_PRODUCER, argv[0], NULL);
	results = rd_kafka_topic_new(producer, argv[3], NULL);
	rd_kafka_poll_set_consumer(consumer);
	rd_kafka_topic_partition_list_add(topics, argv[2], RD_KAFKA_PARTITION_UA);
	rd_kafka_subscribe(consumer, topics);
	rd_kafka_topic_partition_list_destroy(topics);
	base = event_base_new();
	if (dns_server)
		make_dns();
	for (int i = 0; i < n_lanes; i++)
		make_lane(&lanes[i], inflight);
	for (int i = 0; i < inflight; i++) {
		struct transfer *transfer = calloc(1, sizeof(*transfer));
		transfer->easy = curl_easy_init();
		transfer->next = idle;
		idle = transfer;
	}
}

/* The options are eaten; what is left are the six arguments. */
static char **parse(int argc, char **argv)
{
	static const struct option options[] = {{"lanes", required_argument, NULL, 'l'},
						{"linger", required_argument, NULL, 'm'},
						{"ca", required_argument, NULL, 'c'},
						{"fresh", no_argument, NULL, 'f'},
						{"dns", required_argument, NULL, 'd'},
						{0}};

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 'l')
			n_lanes = atoi(optarg);
		else if (c == 'm')
			linger_ms = optarg;
		else if (c == 'c')
			ca = optarg;
		else if (c == 'f')
			is_fresh = 1;
		else if (c == 'd')
			dns_server = optarg;
	}
	if (argc - optind != 6 || n_lanes < 1 || n_lanes > LANES_MAX)
		die("usage", "floor [--lanes N] [--linger MS] [--ca FILE] [--fresh] [--dns ADDRESS:PORT] BROKERS GROUP JOBS RESULTS COUNT INFLIGHT");
	return argv + optind;
}

int main(int argc, char **argv)
{
	rd_kafka_message_t *batch[256];
	long cpu0 = 0, wall0 = 0;

	argv = parse(argc, argv);
	wanted = atol(argv[4]);
	int inflight = atoi(argv[5]);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	set_up(argv, inflight);
	rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(consumer);
	while (delivered < wanted) {
		long room = inflight - (started - fetched);
		if (room > wanted - started)
			room = wanted - started;
		ssize_t n = room > 0 ? rd_kafka_consume_batch_queue(queue, started ? 0 : 100, batch, (size_t)(room < 256 ? room : 256)) : 0;
		for (ssize_t i = 0; i < n; i++) {
			if (batch[i]->err)
				die("consume", rd_kafka_message_errstr(batch[i]));
			if (!started) {
				cpu0 = cpu_us();
				wall0 = wall_us();
			}
			start(batch[i]);
			rd_kafka_message_destroy(batch[i]);
		}
		event_base_loop(base, n > 0 || started == fetched ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
		rd_kafka_poll(producer, started == fetched ? 1 : 0);
	}
	printf("jobs=%ld cpu_us=%ld wall_us=%ld\n", delivered, cpu_us() - cpu0, wall_us() - wall0);
	rd_kafka_commit(consumer, NULL, 0);
	rd_kafka_queue_destroy(queue);
	rd_kafka_consumer_close(consumer);
	return 0;
}
