/* Any bytes as the header lines of an answer, as its body and as every text of a result. The lines are read as a plain
 * reading would; the result always has its size, can be read back, and is the smaller the less room there is. */
#include "err.h"
#include "result.h"
#include "utf8.h"
#include "fuzz.h"

#include "gatherd/v1/result.pb-c.h"

#include <ctype.h>
#include <strings.h>

/* Lines with a colon that is not their first character. */
static size_t count_fields(const uint8_t *data, size_t size)
{
	size_t n = 0;

	for (size_t start = 0, i = 0; i <= size; i++) {
		if (i < size && data[i] != '\n')
			continue;
		const uint8_t *colon = memchr(data + start, ':', i - start);
		n += colon && colon > data + start;
		start = i + 1;
	}
	return n;
}

static void check_lookups(const struct response *resp)
{
	static const char *const names[] = {
	    "Content-Type", "etag", "Last-Modified", "Retry-After", "Location", "x", ""};
	struct span value = {NULL, 0};
	char type[128];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (!response_header(resp, names[i], &value))
			continue;
		must(value.data >= resp->headers.data, "within the lines", names[i]);
		must(value.data + value.len <= resp->headers.data + resp->headers.len, "within the lines", names[i]);
		must(!memchr(value.data, '\n', value.len), "one line", names[i]);
		must(!value.len || (value.data[0] != ' ' && value.data[value.len - 1] != ' '), "trimmed", names[i]);
	}
	memset(type, 'x', sizeof(type));
	response_content_type(resp, type);
	must(memchr(type, 0, sizeof(type)) != NULL, "ended", "the type");
	for (const char *c = type; *c; c++)
		must(*c > ' ' && *c < 0x7f && *c != ';' && !isupper((unsigned char)*c), "clean", type);
}

static void check_judge(const struct job *job, const struct response *resp)
{
	enum outcome outcome = OUTCOME_UNSPECIFIED;
	int err = result_judge(job, resp, &outcome);

	must(outcome == OUTCOME_OK || outcome == OUTCOME_UNEXPECTED, "judged", outcome_name(outcome));
	must((err == 0) == (outcome == OUTCOME_OK), "judged", err_code(err));
}

static void check_text(const char *text, const char *name)
{
	must(utf8_valid_len(text, strlen(text)) == strlen(text), "valid UTF-8", name);
}

/* Returns the size, 0 when it does not fit. */
static size_t check_encode(const struct result *res, size_t max)
{
	uint8_t *data;
	size_t len;

	if (result_encode(res, max, &data, &len) != 0) {
		must(max < (size_t)64 * 1024, "64 KiB are enough", "");
		return 0;
	}
	must(len <= max, "it fits", "");
	Gatherd__V1__FetchResult *read = gatherd__v1__fetch_result__unpack(NULL, len, data);
	must(read != NULL, "it can be read", "");
	/* protobuf-c ends a string at a NUL, so it would write less. */
	bool has_nul = memchr(res->resp->headers.data ? res->resp->headers.data : data, 0, res->resp->headers.len);
	must(has_nul || gatherd__v1__fetch_result__get_packed_size(read) == len, "as protobuf-c would write it", "");
	for (size_t i = 0; i < read->n_headers; i++)
		check_text(read->headers[i]->name, "a header's name");
	check_text(read->url, "url");
	check_text(read->final_url, "final_url");
	check_text(read->error->message, "message");
	check_text(read->content_type, "content_type");
	size_t n_fields = count_fields(res->resp->headers.data, res->resp->headers.len);
	must(read->n_headers + (size_t)read->headers_dropped == n_fields, "every field is there or counted", "");
	must(!read->body.len || read->n_headers || !n_fields, "the body goes before the headers", "");
	must(!memcmp(read->body.data ? read->body.data : data, res->resp->body.data ? res->resp->body.data : data,
		     read->body.len),
	     "the body's beginning", "");
	must(read->body.len == res->resp->body.len || read->truncated == GATHERD__V1__TRUNCATED__TRUNCATED_LENGTH,
	     "a cut is said", "");
	gatherd__v1__fetch_result__free_unpacked(read, NULL);
	free(data);
	return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text_plain[] = {"text/plain"};
	struct response resp;

	response_init(&resp, RESPONSE_HEADER_BYTES_MAX);
	if (buf_add(&resp.headers, data, size) != 0 || buf_add(&resp.body, data, size) != 0) {
		response_done(&resp);
		return 0;
	}
	char *text = xstrndup((const char *)data, size);
	struct record rec = {.topic = "t", .value = {data, size}};
	struct attr attr = {"k", text};
	struct redirect hop = {text, 301, {data, size}, "192.0.2.1"};
	struct job job = {.job_id = "j",
			  .url = text,
			  .method = "GET",
			  .expect_type = text_plain,
			  .n_expect_type = 1,
			  .attrs = &attr,
			  .n_attrs = 1};
	struct result res = {.job = &job,
			     .rec = &rec,
			     .err = -ERR_HTTP_STATUS,
			     .outcome = OUTCOME_BAD_JOB,
			     .detail = *text ? text : "x",
			     .redirects = &hop,
			     .n_redirects = 1,
			     .final_url = text,
			     .resp = &resp};
	resp.status = 200;
	resp.body_length = (int64_t)size;
	check_lookups(&resp);
	check_judge(&job, &resp);
	size_t whole = check_encode(&res, SIZE_MAX);
	/* Less body, no body, no headers, and so on to where nothing helps. */
	const size_t rooms[] = {whole, whole - 1, whole - size / 2, whole / 2, whole / 4, whole / 8};
	for (size_t i = 0; i < ARRAY_LEN(rooms); i++)
		(void)check_encode(&res, rooms[i]);
	free(text);
	response_done(&resp);
	return 0;
}
